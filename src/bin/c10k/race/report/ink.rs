//! The colours. The charts are drawn in inks that no eye will see: each is a number in the place
//! of a colour. Then every ink becomes a class, and a style sheet gives the class its colour, one
//! for light and one for dark.

use plotters::style::RGBColor;

struct Ink {
    name: &'static str,
    light: &'static str,
    dark: &'static str,
}

const fn ink(name: &'static str, light: &'static str, dark: &'static str) -> Ink {
    Ink { name, light, dark }
}

/// The models' colours are those of Okabe and Ito, which can be told apart by the colour-blind,
/// made darker or lighter until they stand out from the background. The kinds of memory are steps
/// of grey and blue-grey, so that none is taken for a model.
const INKS: [Ink; 17] = [
    ink("page", "#f6f7f9", "#0d1117"),
    ink("card", "#ffffff", "#161b22"),
    ink("text", "#1f2328", "#e6edf3"),
    ink("muted", "#59636e", "#9da7b3"),
    ink("grid", "#dde1e6", "#30363d"),
    ink("processes", "#a8508f", "#e08fc0"),
    ink("threads", "#00856a", "#2cc39b"),
    ink("spin", "#7d8590", "#8f98a3"),
    ink("select", "#b07800", "#f0b429"),
    ink("poll", "#d55e00", "#ff8142"),
    ink("epoll", "#0067b1", "#58a6ff"),
    ink("epoll-x2", "#3aa5dd", "#a5d6ff"),
    ink("other", "#1f2328", "#e6edf3"),
    ink("user", "#1f2d4a", "#e8edf8"),
    ink("objects", "#4b628f", "#aebde0"),
    ink("stacks", "#8296c2", "#7d92c6"),
    ink("tables", "#b3c2e0", "#56699c"),
];

/// An ink by its name.
pub(super) fn named(name: &str) -> RGBColor {
    let at = INKS.iter().position(|ink| ink.name == name).expect("an ink of the list");
    RGBColor(0xC1, 0x0C, at as u8)
}

/// A model has one colour wherever it is shown.
pub(super) fn model(model: &str) -> RGBColor {
    let name = model.replace(' ', "-");
    let known = super::picture::MODELS.contains(&model);
    named(if known { &name } else { "other" })
}

/// Makes classes of the inks of a drawing. No text of the drawing can be mistaken for one: in
/// text, quotes are escaped.
pub(super) fn classes(mut svg: String) -> String {
    for (at, ink) in INKS.iter().enumerate() {
        for property in ["fill", "stroke"] {
            let drawn = format!("{property}=\"#C10C{at:02X}\"");
            svg = svg.replace(&drawn, &format!("class=\"{property}-{}\"", ink.name));
        }
    }
    svg
}

/// The style sheet: what the classes look like, and the same colours as variables for a page.
pub(super) fn style() -> String {
    let theme = |colour: fn(&Ink) -> &'static str| {
        let mut rules = String::from(":root{");
        for ink in &INKS {
            rules.push_str(&format!("--{}:{};", ink.name, colour(ink)));
        }
        rules.push_str("}\n");
        for ink in &INKS {
            let (name, colour) = (ink.name, colour(ink));
            rules.push_str(&format!(".fill-{name}{{fill:{colour}}}"));
            rules.push_str(&format!(".stroke-{name}{{stroke:{colour}}}\n"));
        }
        rules
    };
    format!(
        "{}@media (prefers-color-scheme: dark) {{\n{}}}\n\
         svg text {{ font-family: system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; \
         font-variant-numeric: tabular-nums; }}\n\
         svg polyline {{ stroke-linejoin: round; stroke-linecap: round; }}\n",
        theme(|ink| ink.light),
        theme(|ink| ink.dark)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ink_becomes_a_class_that_has_a_colour() {
        let style = style();
        for (at, ink) in INKS.iter().enumerate() {
            assert_eq!(named(ink.name).2 as usize, at);
            let svg = classes(format!("<a fill=\"#C10C{at:02X}\"/><a stroke=\"#C10C{at:02X}\"/>"));
            let (fill, stroke) = (format!("fill-{}", ink.name), format!("stroke-{}", ink.name));
            assert_eq!(svg, format!("<a class=\"{fill}\"/><a class=\"{stroke}\"/>"));
            for class in [fill, stroke] {
                // Once for light and once for dark.
                assert_eq!(style.matches(&format!(".{class}{{")).count(), 2);
            }
        }
    }

    #[test]
    fn a_model_nobody_knows_has_a_colour_too() {
        assert_eq!(model("epoll x2"), named("epoll-x2"));
        assert_eq!(model("io_uring"), named("other"));
        assert_eq!(model("page"), named("other"));
    }
}
