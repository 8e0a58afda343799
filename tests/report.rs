//! The race's report, from figures that were kept: what `race --from` writes, and what a browser
//! makes of it, where one is installed.

#![cfg(feature = "cli")]

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::machine::chromium;
use common::server::c10k;
use common::{Need, comes_true, has};

/// Example figures, which say so themselves.
const RACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/race.json");

/// As wide as a phone, and as a desk's screen, in pixels.
const WIDTHS: [u32; 2] = [390, 1280];

/// A folder of a test's own, that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("c10k-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The report and the picture of the example.
fn report(scratch: &Scratch) -> (String, String) {
    let (html, svg) = (scratch.file("race.html"), scratch.file("race.svg"));
    let [to_html, to_svg] = [&html, &svg].map(|path| path.to_str().unwrap());
    let output = c10k(&["race", "--from", RACE, "--report", to_html, "--svg", to_svg]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (fs::read_to_string(html).unwrap(), fs::read_to_string(svg).unwrap())
}

#[test]
fn a_report_is_made_of_a_race_that_is_over() {
    let scratch = Scratch::new("report");
    let (html, svg) = report(&scratch);
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    for text in [&html, &svg] {
        assert!(text.len() < 1 << 20, "{}", text.len());
        assert!(text.contains("prefers-color-scheme: dark"));
    }
    assert!(html.contains("example data"), "the example is taken for a result");
}

#[test]
fn what_cannot_be_read_or_written_is_one_line_and_status_2() {
    let scratch = Scratch::new("unwritable");
    let missing = scratch.file("no-folder").join("race.html");
    let missing = missing.to_str().unwrap();
    let cases = [
        (["race", "--from", RACE, "--report", missing], "cannot write"),
        (["race", "--from", RACE, "--svg", missing], "cannot write"),
        (["race", "--from", missing, "--report", missing], "No such file"),
        (["race", "--from", file!(), "--report", missing], "not a race's JSON"),
    ];
    for (args, cause) in cases {
        let output = c10k(&args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(cause) && stderr.lines().count() == 1, "{stderr}");
    }
}

/// What a browser made of a page: its document after all scripts, and what it complained of.
struct Shown {
    document: String,
    complaints: Vec<String>,
}

struct Browser {
    name: &'static str,
    scratch: Scratch,
}

impl Browser {
    /// The first that is installed.
    fn find(test: &str) -> Option<Browser> {
        if !has(Need::Chromium) {
            return None;
        }
        Some(Browser { name: chromium()?, scratch: Scratch::new(test) })
    }

    fn open(&self, page: &str, name: &str) -> Shown {
        let file = |kind| self.scratch.file(&format!("{name}.{kind}"));
        fs::write(file("html"), page).unwrap();
        let mut command = Command::new(self.name);
        c10k::sys::die_with_parent(&mut command);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"])
            // Nothing listens there: whatever is asked for over a network is a complaint.
            .arg("--proxy-server=127.0.0.1:9")
            .arg(format!("--user-data-dir={}", file("profile").display()))
            .args(["--window-size=1400,1000", "--dump-dom"])
            .arg(format!("file://{}", file("html").display()));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(file("stdout")).unwrap())
            .stderr(File::create(file("stderr")).unwrap())
            .spawn()
            .unwrap();
        // To start a browser on a busy machine takes longer than anything else here.
        let shown = (0..6).any(|_| comes_true(|| child.try_wait().unwrap().is_some()));
        if !shown {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the browser does not end");
        }
        // It logs more than the page's affairs.
        let log = String::from_utf8_lossy(&fs::read(file("stderr")).unwrap()).into_owned();
        let complaints = log.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned);
        let document = fs::read_to_string(file("stdout")).unwrap();
        assert!(document.contains("</html>"), "{log}");
        Shown { document, complaints: complaints.collect() }
    }
}

#[test]
fn a_browser_shows_the_report_and_has_nothing_to_complain_of() {
    let Some(browser) = Browser::find("browser") else { return };
    let (html, _) = report(&browser.scratch);
    let shown = browser.open(&html, "page");
    assert_eq!(shown.complaints, [""; 0]);
    for id in ["throughput", "idle", "latency", "memory", "cpu"] {
        let (_, figure) = shown.document.split_once(&format!("<figure id=\"{id}\"")).expect(id);
        let (figure, _) = figure.split_once("</figure>").unwrap();
        assert!(figure.contains("<svg ") && figure.contains("<polyline "), "{id}: {figure}");
        assert!(figure.contains("<figcaption>"), "{id}: {figure}");
    }

    // The same page, if it did want something from elsewhere.
    let wants = html.replace("<h1>", "<img src=\"http://127.0.0.1:9/x.png\" alt=\"\"><h1>");
    assert!(!browser.open(&wants, "wants").complaints.is_empty(), "a fetch goes unnoticed");
}

/// Looks at each page in a frame, and writes what is wrong with it where the dump will show it.
const LOOK: &str = r#"
<script>
const problems = [];
function look(frame) {
    const width = frame.clientWidth, page = frame.contentDocument;
    const say = text => problems.push(width + ": " + text);
    if (page.documentElement.scrollWidth > width) say("the page scrolls sideways");
    const svgs = page.querySelectorAll("svg");
    if (svgs.length === 0) say("no chart");
    for (const svg of svgs) {
        const around = svg.getBoundingClientRect();
        const texts = [...svg.querySelectorAll("text")];
        if (texts.length === 0) say("a chart without text");
        const boxes = texts.map(text => text.getBoundingClientRect());
        boxes.forEach((a, i) => {
            const name = texts[i].textContent.trim();
            if (a.left < around.left || a.right > around.right || a.top < around.top
                || a.bottom > around.bottom) say("cut off: " + name);
            boxes.slice(i + 1).forEach((b, j) => {
                // Boxes are higher than letters: let them touch.
                const apart = 0.25 * Math.min(a.height, b.height);
                if (a.left < b.right && b.left < a.right && a.top + apart < b.bottom
                    && b.top + apart < a.bottom)
                    say("overlap: " + name + " / " + texts[i + 1 + j].textContent.trim());
            });
            const size = parseFloat(getComputedStyle(texts[i]).fontSize);
            const scale = around.width / svg.viewBox.baseVal.width;
            if (size * scale < 9) say("too small to read: " + name);
        });
    }
}
window.onload = () => {
    const frames = document.querySelectorAll("iframe");
    for (const frame of frames) look(frame);
    document.title = frames.length + " looked at: " + (problems.join("; ") || "all well");
};
</script>
"#;

/// Pages in frames of these widths, and a script that looks at them.
fn frames(pages: &[(u32, &str)]) -> String {
    let frame = |(width, page): &(u32, &str)| {
        let page = page.replace('&', "&amp;").replace('"', "&quot;");
        format!("<iframe style=\"border:0;width:{width}px\" srcdoc=\"{page}\"></iframe>\n")
    };
    let frames: String = pages.iter().map(frame).collect();
    format!("<!doctype html><title>nobody has looked</title>{LOOK}{frames}")
}

fn title(shown: &Shown) -> &str {
    let (_, title) = shown.document.split_once("<title>").unwrap();
    title.split_once("</title>").unwrap().0
}

#[test]
fn every_label_can_be_read_on_a_phone_and_on_a_wide_screen() {
    let Some(browser) = Browser::find("labels") else { return };
    let (html, svg) = report(&browser.scratch);
    let mut pages = WIDTHS.map(|width| (width, html.as_str())).to_vec();
    // A README shows it as wide as itself.
    let readme = format!("<style>body {{ margin: 0 }} svg {{ width: 830px }}</style>{svg}");
    pages.push((830, &readme));
    let shown = browser.open(&frames(&pages), "frames");
    assert_eq!(title(&shown), "3 looked at: all well");

    // Whoever looks does see what is wrong.
    let cases = [
        (html.replace("<h1>", "<h1 style='width:2000px'>"), "scrolls sideways"),
        (html.replace("text-anchor=\"end\"", "text-anchor=\"start\""), "overlap"),
        (html.replace("\nprocesses\n", "\nprocesses of a long name\n"), "cut off"),
        (html.replace("viewBox=\"0 0 1120", "viewBox=\"0 0 2240"), "too small"),
    ];
    let pages = cases.each_ref().map(|(page, _)| (WIDTHS[0], page.as_str()));
    for ((_, problem), page) in cases.iter().zip(pages) {
        let shown = browser.open(&frames(&[page]), "wrong");
        assert!(title(&shown).contains(problem), "{problem}: {}", title(&shown));
    }
}
