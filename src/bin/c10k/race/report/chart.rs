//! The charts, as SVG: lines against an axis, and bars of several parts.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, decades, nines};
use super::ink;
use super::picture::{Picture, limit_of};
use crate::race::result::{Cell, Memory, Race, Spread};

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<io::Error>>;

/// Two units are a pixel on a wide page: plotters puts everything on whole units, and whole
/// pixels are too coarse for a curve. On a phone three and a bit are one.
pub(super) const SIZE: (u32, u32) = (1120, 720);

/// Of letters, in units, for plotters, which makes them smaller than it is told.
const LETTERS: f64 = 34.0 * 1.24;

/// From one label to the next below it, at least.
const LINE_HEIGHT: i32 = 44;

/// A line of so many points is a curve, and needs no marks.
const CURVE: usize = 10;

/// The room at the sides of a chart: for the unit, the names of the models, and the ticks.
const TOP: u32 = 78;
const RIGHT: u32 = 240;
const BOTTOM: u32 = 100;
const LEFT: u32 = 152;
/// The room at the left of bars, for the names of the models.
const NAMES: u32 = 204;

type Bytes = fn(&Memory) -> f64;

/// The kinds of memory, from the start of a bar, with their inks.
const KINDS: [(&str, &str, Bytes); 4] = [
    ("user", "user", |memory| memory.user_bytes),
    ("kernel objects", "objects", |memory| memory.kernel_object_bytes),
    ("kernel stacks", "stacks", |memory| memory.kernel_stack_bytes),
    ("page tables", "tables", |memory| memory.page_table_bytes),
];

/// A drawing of that size, in classes instead of colours, without the `<svg>` around it.
pub(super) fn drawing(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    draw(&area).and_then(|()| area.present()).expect("a string takes whatever is drawn");
    drop(area);
    let (_, inside) = svg.split_once('>').expect("the svg element");
    ink::classes(inside.trim_start().trim_end().trim_end_matches("</svg>").to_owned())
}

/// The rate of each model against connections.
pub(super) fn rates(area: &Area<'_>, race: &Race, picture: &Picture<'_>) -> Drawn {
    let lines = against_connections(race, picture, |cell| Some(cell.requests_per_s), |rate| rate);
    let Some((_, most)) = bounds(&lines) else { return not_measured(area) };
    let x = Axis::connections(&picture.counts());
    draw_lines(area, lines, &x, &Axis::from_zero(most, "requests/s"))
}

/// What a request costs the server under each model, against connections: logarithmic, since
/// where the cost grows with the connections it dwarfs all else.
pub(super) fn cpu(area: &Area<'_>, race: &Race, picture: &Picture<'_>) -> Drawn {
    // Less than a clock tick in the whole run was not measured.
    let measured = |cell: &Cell| cell.server_cpu_us_per_request.filter(|cpu| cpu.low() > 0.0);
    let lines = against_connections(race, picture, measured, f64::log10);
    let Some((least, most)) = bounds(&lines) else { return not_measured(area) };
    let y = Axis::times(10f64.powf(least), 10f64.powf(most), "CPU per request, log scale");
    draw_lines(area, lines, &Axis::connections(&picture.counts()), &y)
}

/// A line for each model that has a figure. `place` says where a figure is on its axis.
fn against_connections<'a>(
    race: &Race,
    picture: &Picture<'a>,
    figure: impl Fn(&Cell) -> Option<Spread>,
    place: impl Fn(f64) -> f64,
) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for model in picture.models() {
        let ends = limit_of(race, picture, model).is_some();
        let mut line = Line { model, points: Vec::new(), spreads: Vec::new(), ends };
        for cell in picture.of(model) {
            if let Some(spread) = figure(cell) {
                let x = decades(cell.connections);
                line.points.push((x, place(spread.median)));
                line.spreads
                    .extend(spread.range().map(|(min, max)| [(x, place(min)), (x, place(max))]));
            }
        }
        lines.push(line);
    }
    lines.retain(|line| !line.points.is_empty());
    lines
}

/// The lowest and the highest of the lines, if there is any.
fn bounds(lines: &[Line<'_>]) -> Option<(f64, f64)> {
    let spreads = lines.iter().flat_map(|line| line.spreads.iter().flatten());
    let points = lines.iter().flat_map(|line| &line.points).chain(spreads);
    points.map(|point| point.1).fold(None, |bounds, y| match bounds {
        None => Some((y, y)),
        Some((least, most)) => Some((y.min(least), y.max(most))),
    })
}

/// The latency of each model, by percentile.
pub(super) fn latencies(area: &Area<'_>, picture: &Picture<'_>) -> Drawn {
    let mut lines = Vec::new();
    for cell in &picture.cells {
        let curve = curve(cell).into_iter();
        // What is not above zero has no place on a logarithmic axis.
        let curve = curve.filter(|(_, us)| *us > 0.0);
        let points: Vec<_> = curve.map(|(share, us)| (nines(share), us.log10())).collect();
        lines.push(Line { model: &cell.model, points, spreads: Vec::new(), ends: false });
    }
    lines.retain(|line| !line.points.is_empty());
    let Some((least, most)) = bounds(&lines) else { return not_measured(area) };
    let shares = lines.iter().flat_map(|line| &line.points).map(|point| point.0);
    let most_nines = shares.fold(0.0, f64::max);
    let y = Axis::times(10f64.powf(least), 10f64.powf(most), "latency, log scale");
    draw_lines(area, lines, &Axis::percentile(most_nines), &y)
}

/// What was measured of the latency curve: at least four points of it.
fn curve(cell: &Cell) -> Vec<(f64, f64)> {
    let latency = cell.latency_us;
    let few = [(0.5, latency.p50), (0.9, latency.p90), (0.99, latency.p99), (0.999, latency.p99_9)];
    // The largest latency is that of no percentile: the axis never reaches 100%.
    let inside =
        cell.latency_curve.iter().filter(|(quantile, _)| (0.0..0.99995).contains(quantile));
    match cell.latency_curve.is_empty() {
        true => few.to_vec(),
        false => inside.copied().collect(),
    }
}

/// The memory of an idle connection under each model, a bar made of its kinds.
pub(super) fn memory(area: &Area<'_>, picture: &Picture<'_>) -> Drawn {
    let measured = |cell: &&Cell| Some((cell.model.clone(), cell.memory?));
    let mut bars: Vec<_> = picture.cells.iter().filter_map(measured).collect();
    bars.sort_by(|a, b| b.1.total_bytes().total_cmp(&a.1.total_bytes()));
    let Some((_, largest)) = bars.first() else { return not_measured(area) };
    let x = Axis::from_zero(largest.total_bytes() / 1e3, "kB per connection");
    let y = Axis { range: bars.len() as f64..0.0, ticks: Vec::new(), name: "" };
    let place = frame(area, &x, &y, NAMES)?;
    let screen = area.use_screen_coord();
    for (row, (model, memory)) in bars.iter().enumerate() {
        let row = row as f64;
        let mut start = 0.0;
        for (_, name, bytes) in KINDS {
            // Taken as a difference of the whole machine, it may be a little less than nothing.
            let end = start + bytes(memory).max(0.0) / 1e3;
            let corners = [place((start, row + 0.2)), place((end, row + 0.8))];
            screen.draw(&Rectangle::new(corners, ink::named(name).filled()))?;
            start = end;
        }
        let (name, total) = (place((0.0, row + 0.5)), place((start, row + 0.5)));
        text(&screen, model, (name.0 - 16, name.1), HPos::Right, "text")?;
        let kilobytes = kilobytes(memory.total_bytes());
        text(&screen, &kilobytes, (total.0 + 14, total.1), HPos::Left, "text")?;
    }
    key(area)
}

/// `4.9 kB`.
pub(super) fn kilobytes(bytes: f64) -> String {
    // Rounded first: 99,960 are 100 kB and not 100.0.
    match (bytes.abs() / 1e2).round() < 1e3 {
        true => format!("{:.1} kB", bytes / 1e3),
        false => format!("{:.0} kB", bytes / 1e3),
    }
}

/// Which ink is which kind of memory: a line above the bars.
fn key(area: &Area<'_>) -> Drawn {
    let y = TOP as i32 - 48;
    for ((kind, name, _), x) in KINDS.into_iter().zip([8, 150, 448, 732]) {
        let swatch = [(x, y - 12), (x + 24, y + 12)];
        area.draw(&Rectangle::new(swatch, ink::named(name).filled()))?;
        text(area, kind, (x + 36, y), HPos::Left, "muted")?;
    }
    Ok(())
}

struct Line<'a> {
    model: &'a str,
    /// In the measures of the axes.
    points: Vec<(f64, f64)>,
    /// From the least to the most of the rounds.
    spreads: Vec<[(f64, f64); 2]>,
    /// At the model's limit, before the axis does.
    ends: bool,
}

/// Each line with its model's name beside it.
fn draw_lines(area: &Area<'_>, mut lines: Vec<Line<'_>>, x: &Axis, y: &Axis) -> Drawn {
    let place = frame(area, x, y, LEFT)?;
    // What the others are compared to lies on top of them.
    lines.sort_by_key(|line| line.model == "epoll");
    let screen = area.use_screen_coord();
    let mut names = Vec::new();
    for line in &lines {
        debug_assert!(line.points.iter().all(|(x, y)| x.is_finite() && y.is_finite()));
        let ink = ink::model(line.model);
        for spread in &line.spreads {
            screen.draw(&PathElement::new(spread.map(&place), ink.stroke_width(3)))?;
        }
        let points: Vec<_> = line.points.iter().map(|point| place(*point)).collect();
        let width = if line.model == "epoll" { 7 } else { 5 };
        screen.draw(&PathElement::new(points.clone(), ink.stroke_width(width)))?;
        let end = points[points.len() - 1];
        if points.len() < CURVE {
            for point in &points {
                screen.draw(&Circle::new(*point, 8, ink.filled()))?;
            }
        }
        names.push((end, line));
    }
    let (right, bottom) = place((x.range.end, y.range.start));
    write_names(&screen, names, right, bottom)
}

/// Where a line ends because the model can do no more.
fn cross(area: &Area<'_>, (x, y): (i32, i32), line: &Line<'_>) -> Drawn {
    let style = ink::model(line.model).stroke_width(5);
    area.draw(&PathElement::new([(x - 11, y - 11), (x + 11, y + 11)], style))?;
    area.draw(&PathElement::new([(x - 11, y + 11), (x + 11, y - 11)], style))
}

/// The names at the right, each as near to the end of its line as the others leave it room, and
/// tied to it if the line reaches as far as any does.
fn write_names(
    area: &Area<'_>,
    mut names: Vec<((i32, i32), &Line<'_>)>,
    right: i32,
    bottom: i32,
) -> Drawn {
    names.sort_by_key(|((_, y), _)| *y);
    let last = names.iter().map(|((x, _), _)| *x).max();
    let wanted: Vec<i32> = names.iter().map(|((_, y), _)| *y).collect();
    for (((x, y), line), name_y) in names.into_iter().zip(spread_out(&wanted, bottom)) {
        let ink = ink::model(line.model);
        let name_x = right + 34;
        if line.ends {
            cross(area, (x, y), line)?;
            cross(area, (name_x, name_y), line)?;
        } else {
            area.draw(&Circle::new((name_x, name_y), 8, ink.filled()))?;
        }
        if Some(x) == last {
            let to_name = [(x + 12, y), (right + 4, y), (name_x, name_y)];
            area.draw(&PathElement::new(to_name, ink.stroke_width(2)))?;
        }
        text(area, line.model, (name_x + 22, name_y), HPos::Left, "text")?;
    }
    Ok(())
}

/// Moves what is sorted apart, to at least a line's height, and none below the bottom.
fn spread_out(wanted: &[i32], bottom: i32) -> Vec<i32> {
    let mut places = wanted.to_vec();
    for at in 1..places.len() {
        places[at] = places[at].max(places[at - 1] + LINE_HEIGHT);
    }
    let mut most = bottom;
    for place in places.iter_mut().rev() {
        *place = (*place).min(most);
        most = *place - LINE_HEIGHT;
    }
    places
}

/// Draws the axes and the grid. Returns where a point is on the drawing.
fn frame(
    area: &Area<'_>,
    x: &Axis,
    y: &Axis,
    left: u32,
) -> Drawn<impl Fn((f64, f64)) -> (i32, i32)> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(TOP)
        .margin_right(RIGHT)
        .x_label_area_size(BOTTOM)
        .y_label_area_size(left)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let muted = ink::named("muted");
    let letters = || ("sans-serif", LETTERS).into_font().color(&muted);
    chart
        .configure_mesh()
        .bold_line_style(ink::named("grid").stroke_width(2))
        .axis_style(ink::named("grid").stroke_width(2))
        .label_style(letters())
        .axis_desc_style(letters())
        .x_desc(x.name)
        .draw()?;
    text(area, y.name, (8, TOP as i32 - 48), HPos::Left, "muted")?;
    Ok(move |point| chart.backend_coord(&point))
}

fn not_measured(area: &Area<'_>) -> Drawn {
    let (width, height) = area.dim_in_pixel();
    text(area, "not measured", (width as i32 / 2, height as i32 / 2), HPos::Center, "muted")
}

/// Text beside, at, or before a point, at its height.
pub(super) fn text(area: &Area<'_>, text: &str, at: (i32, i32), side: HPos, name: &str) -> Drawn {
    let style = ("sans-serif", LETTERS).into_font().color(&ink::named(name));
    area.draw(&Text::new(text, at, style.pos(Pos::new(side, VPos::Center))))
}

/// The title of a chart, where it has none around it.
pub(super) fn title(area: &Area<'_>, text: &str, at: (i32, i32)) -> Drawn {
    let style = ("sans-serif", LETTERS, FontStyle::Bold).into_font().color(&ink::named("text"));
    area.draw(&Text::new(text, at, style.pos(Pos::new(HPos::Left, VPos::Center))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::report::sample::{cell, race};

    /// Every number of an attribute that says where something is.
    fn places(drawing: &str, attribute: &str) -> Vec<f64> {
        let start = format!(" {attribute}=\"");
        let values = drawing.split(&start).skip(1);
        let values = values.map(|rest| rest.split('"').next().unwrap());
        values.flat_map(|value| value.split([' ', ','])).flat_map(str::parse).collect()
    }

    #[test]
    fn names_are_moved_apart_but_never_below_the_chart() {
        assert!(spread_out(&[], 500).is_empty());
        assert_eq!(spread_out(&[10, 300], 500), [10, 300]);
        assert_eq!(spread_out(&[10, 12, 13], 500), [10, 54, 98]);
        assert_eq!(spread_out(&[490, 495, 500], 500), [412, 456, 500]);
    }

    #[test]
    fn everything_is_drawn_within_the_drawing() {
        let mut race = race();
        // Nothing takes no time; and a rate of nothing is drawn at zero.
        let mut nothing = cell("io_uring", 10_000, 10_000, 0.0);
        (nothing.latency_us.p50, nothing.latency_us.p90) = (0.0, 0.0);
        nothing.server_cpu_us_per_request = Some(Spread::once(0.0));
        race.cells.push(nothing);
        let (busy, tail) = (Picture::busy(&race), Picture::tail(&race));
        let drawings = [
            drawing(SIZE, |area| rates(area, &race, &busy)),
            drawing(SIZE, |area| cpu(area, &race, &busy)),
            drawing(SIZE, |area| latencies(area, &tail)),
            drawing(SIZE, |area| memory(area, &Picture::memory(&race))),
        ];
        for drawing in drawings {
            let points = places(&drawing, "points");
            let (xs, ys): (Vec<f64>, Vec<f64>) = points.chunks(2).map(|at| (at[0], at[1])).unzip();
            let xs = [xs, places(&drawing, "cx"), places(&drawing, "x")].concat();
            let ys = [ys, places(&drawing, "cy"), places(&drawing, "y")].concat();
            assert!(xs.len() > 10 && ys.len() == xs.len(), "{drawing}");
            assert!(xs.iter().all(|x| (0.0..=f64::from(SIZE.0)).contains(x)), "{xs:?}");
            assert!(ys.iter().all(|y| (0.0..=f64::from(SIZE.1)).contains(y)), "{ys:?}");
            assert!(!drawing.contains('#'), "a colour that is no class: {drawing}");
        }
    }

    #[test]
    fn what_was_not_measured_is_said_not_to_be() {
        let mut race = race();
        race.cells.clear();
        let picture = Picture::busy(&race);
        for drawn in [
            drawing(SIZE, |area| rates(area, &race, &picture)),
            drawing(SIZE, |area| cpu(area, &race, &picture)),
            drawing(SIZE, |area| latencies(area, &picture)),
            drawing(SIZE, |area| memory(area, &picture)),
        ] {
            assert!(drawn.contains("not measured"), "{drawn}");
        }
    }

    #[test]
    fn a_curve_is_drawn_as_far_as_the_axis_reaches() {
        let mut one = cell("epoll", 100, 100, 1e5);
        assert_eq!(curve(&one).len(), 4);
        one.latency_curve = vec![(0.0, 10.0), (0.5, 20.0), (0.99, 30.0), (1.0, 90.0)];
        assert_eq!(curve(&one), [(0.0, 10.0), (0.5, 20.0), (0.99, 30.0)]);
    }

    #[test]
    fn a_line_that_stops_has_a_cross_at_its_end_and_at_its_name() {
        let crossed = |race: &Race| {
            let picture = Picture::busy(race);
            let drawing = drawing(SIZE, |area| rates(area, race, &picture));
            drawing.matches("stroke-select\" stroke-width=\"5\"").count()
        };
        let mut race = race();
        let with_limit = crossed(&race);
        race.limits.clear();
        // Two strokes for each cross.
        assert_eq!(with_limit, crossed(&race) + 4);
    }
}
