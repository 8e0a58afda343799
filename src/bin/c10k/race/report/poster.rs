//! The picture for a README: what active connections cost, beside what idle ones do. It brings its
//! own background, so that it can be read on any page.

use plotters::style::text_anchor::HPos;

use super::chart::{self, SIZE};
use super::ink;
use super::page::{escaped, limits, machine};
use super::picture::Picture;
use crate::race::result::Race;

/// Around and between the charts.
const MARGIN: u32 = 40;
const TITLE: u32 = 84;
const FOOT: u32 = 56;

/// One self-contained SVG file.
pub(crate) fn svg(race: &Race) -> String {
    let (busy, idle) = (Picture::busy(race), Picture::idle(race));
    let mut foot = limits(race, &[&busy, &idle]);
    foot.push(format!("{}-byte echo over loopback; {}", race.method.message_bytes, machine(race)));
    let width = 2 * SIZE.0 + 3 * MARGIN;
    let height = TITLE + SIZE.1 + FOOT * foot.len() as u32 + MARGIN;
    let drawing = chart::drawing((width, height), |area| {
        for (at, picture) in (0..).zip([&busy, &idle]) {
            let left = MARGIN + at * (SIZE.0 + MARGIN);
            let title = format!("Throughput, {}", picture.activity());
            chart::title(area, &title, (left as i32 + 8, TITLE as i32 / 2 + 12))?;
            let panel = area.clone().shrink((left, TITLE), SIZE);
            chart::rates(&panel, race, picture)?;
        }
        for (line, at) in foot.iter().zip(0..) {
            let y = TITLE + SIZE.1 + FOOT * at + MARGIN;
            chart::text(area, line, (MARGIN as i32 + 8, y as i32), HPos::Left, "muted")?;
        }
        Ok(())
    });
    let label = "Requests a second against connections: all active, and most of them idle";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{}\">\n<style>\n{}</style>\n\
         <rect class=\"fill-card\" width=\"{width}\" height=\"{height}\" rx=\"24\"/>\n{drawing}</svg>\n",
        width / 2,
        height / 2,
        escaped(label),
        ink::style(),
    )
}
