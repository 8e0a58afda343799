//! The race's report: a page that needs nothing but itself, and a picture for a README.

mod axis;
mod chart;
mod ink;
mod page;
mod picture;
mod poster;
mod reading;
#[cfg(test)]
pub(crate) mod sample;

use std::fs;
use std::io;
use std::path::Path;

pub(crate) use self::page::html;
pub(crate) use self::poster::svg;
use super::conclusion::conclusion;
use super::result::{Cell, Race};
use crate::Failure;

/// Reads what `race --json` has printed. What it concludes is what this version does.
pub(crate) fn read(path: &Path) -> Result<Race, Failure> {
    let cannot = |why: String| Failure::Cannot(format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
    let mut race: Race = serde_json::from_str(&text)
        .map_err(|error| cannot(format!("not a race's JSON: {error}")))?;
    race.cells.iter_mut().for_each(Cell::drop_spread_of_one_round);
    race.conclusion = conclusion(&race);
    Ok(race)
}

/// An error if it cannot be written later. A file that was there is left as it is until then; one
/// that was not is there now, and empty, and the result is `true`.
pub(crate) fn check(path: &Path) -> Result<bool, Failure> {
    let mut open = fs::OpenOptions::new();
    match open.append(true).create_new(true).open(path) {
        Ok(_) => Ok(true),
        Err(_) => {
            let file = open.create_new(false).create(true).open(path);
            file.map(|_| false).map_err(|error| cannot_write(path, &error))
        }
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::Cannot(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 5] = ["throughput", "idle", "latency", "memory", "cpu"];

    /// Everything that a race may lack.
    fn bare() -> Race {
        let mut race = sample::race();
        for cell in &mut race.cells {
            (cell.memory, cell.server_cpu_us_per_request) = (None, None);
            cell.latency_curve.clear();
        }
        (race.limits, race.warnings) = (Vec::new(), Vec::new());
        race
    }

    fn empty() -> Race {
        Race { cells: Vec::new(), ..bare() }
    }

    #[test]
    fn the_page_has_every_chart_whatever_was_measured() {
        for race in [sample::race(), bare(), empty()] {
            let html = html(&race);
            for id in IDS {
                assert_eq!(html.matches(&format!("<figure id=\"{id}\"")).count(), 1, "{id}");
            }
            assert_eq!(html.matches("<svg ").count(), 6);
            assert_eq!(html.matches("<svg ").count(), html.matches("role=\"img\"").count());
            assert!(html.len() < 1 << 20);
        }
    }

    #[test]
    fn the_conclusion_comes_first() {
        let mut race = sample::race();
        race.conclusion = vec!["One & only.".to_owned()];
        race.interrupted = Some("SIGINT".to_owned());
        let html = html(&race);
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text}"));
        assert!(at("<p class=\"conclusion\">One &amp; only.</p>") < at("Interrupted by SIGINT"));
        assert!(at("Interrupted by SIGINT") < at("<figure"));
    }

    #[test]
    fn nothing_refers_to_another_place() {
        let race = sample::race();
        let svg = svg(&race);
        assert!(!html(&race).contains("://"));
        let elsewhere = svg.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!elsewhere.contains("://") && !elsewhere.contains("url("), "{elsewhere}");
    }

    #[test]
    fn what_comes_from_a_file_is_text_and_no_markup() {
        let mut race = sample::race();
        let evil = "</svg><script>alert('1 & \"quoted\"')</script>";
        race.machine.cpu = evil.to_owned();
        race.c10k_version = evil.to_owned();
        race.machine.kernel = evil.to_owned();
        race.warnings = vec![evil.to_owned()];
        race.limits[0].why = evil.to_owned();
        race.cells.iter_mut().step_by(3).for_each(|cell| cell.model = evil.to_owned());
        for text in [html(&race), svg(&race)] {
            assert!(!text.contains("<script"));
            assert!(text.contains("&lt;script&gt;"));
            assert!(!text.contains("\"quoted\""));
        }
    }

    #[test]
    fn the_page_shows_the_figures_the_limits_and_the_warnings() {
        let html = html(&sample::race());
        for text in
            ["120,600", "stops at 1,015 connections", "a warning &amp; its reason", "AMD EPYC"]
        {
            assert!(html.contains(text), "{text}");
        }
        assert!(svg(&sample::race()).contains("stops at 1,015 connections"));
    }

    #[test]
    fn what_is_no_race_is_refused_in_one_line() {
        let file = std::env::temp_dir().join(format!("c10k-no-race-{}", std::process::id()));
        std::fs::write(&file, "{\"cells\": 1}").unwrap();
        let result = read(&file);
        std::fs::remove_file(&file).unwrap();
        let Err(Failure::Cannot(why)) = result else { panic!("{result:?}") };
        assert!(why.contains("not a race's JSON") && !why.contains('\n'), "{why}");
    }
}
