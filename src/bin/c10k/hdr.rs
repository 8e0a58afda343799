//! HdrHistogram's interval log, in which a load keeps what it measured: a line of text for each
//! interval, with its histogram. Other programs read it, and logs of several machines add up.

use std::borrow::Borrow;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, IntervalLogWriterError,
    LogEntry,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

/// What the file says of itself. Interval_Max is for people, as the Java writer has it:
/// milliseconds, where the values are nanoseconds.
const COMMENTS: [&str; 3] = [
    "[Histogram log format version 1.3]",
    concat!("[Logged by c10k ", env!("CARGO_PKG_VERSION"), "]"),
    "[Values: nanoseconds. Interval_Max: milliseconds, maxValueUnitRatio 1000000]",
];
const MAX_VALUE_UNIT_RATIO: f64 = 1e6;

/// A time stamp below that is no time of day but time since something: the rule of the Java reader.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The year 9,000, more or less: later than any log, and early enough for what prints dates, which
/// ends with the year 9,999.
const TIME_MAX: Duration = YEAR.saturating_mul(7_000);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Interval {
    /// Since 1970, or if the log does not tell the time of day, since a moment of its own.
    pub(crate) start: Duration,
    pub(crate) length: Duration,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Interval {
    pub(crate) fn end(&self) -> Duration {
        self.start + self.length
    }

    /// Whether it tells the time of day.
    pub(crate) fn is_dated(&self) -> bool {
        self.start >= YEAR
    }
}

/// Writes a log of intervals, which are in the order of their starts, one by one as they come.
pub(crate) fn write<I>(intervals: I, out: &mut impl Write) -> io::Result<()>
where
    I: IntoIterator,
    I::Item: Borrow<Interval>,
{
    let mut intervals = intervals.into_iter().peekable();
    let mut builder = IntervalLogWriterBuilder::new();
    for comment in COMMENTS {
        builder.add_comment(comment);
    }
    builder.with_max_value_divisor(MAX_VALUE_UNIT_RATIO);
    // Time stamps count from the first interval. All times in a log have milliseconds: what the
    // first has beyond them is lost with all of them alike.
    let base = match intervals.peek().map(Borrow::borrow) {
        Some(first) if first.is_dated() => first.start,
        _ => Duration::ZERO,
    };
    if !base.is_zero() {
        builder.with_start_time(UNIX_EPOCH + base).with_base_time(UNIX_EPOCH + base);
    }
    let mut serializer = V2DeflateSerializer::new();
    let mut log = builder.begin_log_with(out, &mut serializer)?;
    for interval in intervals {
        let Interval { start, length, latency } = interval.borrow();
        log.write_histogram(latency, *start - base, *length, None).map_err(
            |error| match error {
                IntervalLogWriterError::IoError(error) => error,
                IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
            },
        )?;
    }
    Ok(())
}

/// Why a file is not a log, and the number of the line.
#[derive(Debug, PartialEq)]
pub(crate) struct Broken {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Reads the intervals of a log, whoever wrote it.
pub(crate) fn read(log: &[u8]) -> Result<Vec<Interval>, Broken> {
    let mut intervals = Vec::new();
    let mut time = Time::default();
    let mut deserializer = Deserializer::new();
    // Given one line at a time, the iterator's end is the line's, and we know which one it is.
    for (line, number) in log.split(|&byte| byte == b'\n').zip(1..) {
        let broken = |what: String| Broken { line: number, what };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line = [line, b"\n"].concat();
        match IntervalLogIterator::new(&line).next() {
            None => {}
            Some(Ok(LogEntry::StartTime(start))) => time.start = start,
            Some(Ok(LogEntry::BaseTime(base))) => time.base = Some(base),
            Some(Ok(LogEntry::Interval(entry))) => {
                intervals.push(interval(&entry, &time, &mut deserializer).map_err(broken)?);
            }
            Some(Err(_)) => {
                return Err(broken("this is no line of an HdrHistogram log".to_owned()));
            }
        }
    }
    Ok(intervals)
}

/// What the comments so far have said of the time.
#[derive(Default)]
struct Time {
    start: Duration,
    base: Option<Duration>,
}

impl Time {
    /// What an interval's time stamp counts from. Where no base is given and it is much earlier
    /// than the start, then from that (the Java reader's rule).
    fn base_of(&self, stamp: Duration) -> Duration {
        match self.base {
            Some(base) => base,
            None if stamp + YEAR < self.start => self.start,
            None => Duration::ZERO,
        }
    }
}

fn interval(
    entry: &IntervalLogHistogram<'_>,
    time: &Time,
    deserializer: &mut Deserializer,
) -> Result<Interval, String> {
    let (stamp, length) = (entry.start_timestamp(), entry.duration());
    let out_of_range = || "the time is out of range".to_owned();
    let each = [stamp, length, time.start, time.base.unwrap_or_default()];
    if each.into_iter().any(|time| time > TIME_MAX) {
        return Err(out_of_range());
    }
    let start = time.base_of(stamp) + stamp;
    if start + length > TIME_MAX {
        return Err(out_of_range());
    }
    let bytes = STANDARD
        .decode(entry.encoded_histogram())
        .map_err(|error| format!("the histogram is not base64: {error}"))?;
    // The deserializer stops before the checksum. What it covers comes after a cookie and a length.
    io::copy(&mut ZlibDecoder::new(bytes.get(8..).unwrap_or_default()), &mut io::sink())
        .map_err(|error| format!("the histogram is damaged: {error}"))?;
    let latency = deserializer
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| format!("the histogram cannot be read: {error}"))?;
    Ok(Interval { start, length, latency })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn interval(start: Duration, values: &[u64]) -> Interval {
        let mut latency = Histogram::new(3).unwrap();
        for &value in values {
            latency.record(value).unwrap();
        }
        Interval { start, length: SECOND, latency }
    }

    fn text(intervals: &[Interval]) -> String {
        let mut text = Vec::new();
        write(intervals, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let today = Duration::from_millis(1_700_000_000_250);
        for start in [today, Duration::ZERO, 5 * SECOND] {
            let second = |n: u32, values| interval(start + n * SECOND, values);
            let all = [
                second(0, &[1, 1_000, 123_456_789]),
                second(1, &[]),
                second(3, &[u64::from(u32::MAX) * 1_000]),
            ];
            let read = read(text(&all).as_bytes()).unwrap();
            assert_eq!(read, all);
            assert_eq!(read[0].is_dated(), start == today);
        }
        assert_eq!(read(text(&[]).as_bytes()), Ok(vec![]));
    }

    #[test]
    fn it_says_what_it_is() {
        let log = text(&[interval(Duration::from_millis(1_700_000_000_250), &[2_000_000])]);
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines[0], "#[Histogram log format version 1.3]");
        assert!(lines[2].contains("nanoseconds") && lines[2].contains("maxValueUnitRatio 1000000"));
        assert_eq!(lines[3], "#[StartTime: 1700000000.250 (seconds since epoch)]");
        assert_eq!(lines[4], "#[BaseTime: 1700000000.250 (seconds since epoch)]");
        // The largest of two milliseconds is the largest value of its bucket.
        assert!(lines[6].starts_with("0.000,1.000,2.001,HISTFAAAA"), "{log}");
        // More than milliseconds is not told, and not added up either.
        let start = Duration::from_micros(1_700_000_000_250_999);
        let log = text(&[interval(start, &[1]), interval(start + SECOND, &[1])]);
        let stamps: Vec<_> = log.lines().skip(6).map(|line| &line[..6]).collect();
        assert_eq!(stamps, ["0.000,", "1.000,"]);
    }

    #[test]
    fn time_stamps_are_as_other_writers_have_them() {
        let payload = text(&[interval(Duration::ZERO, &[1])]);
        let payload = payload.trim_end().rsplit(',').next().unwrap();
        for (header, stamp, start_s) in [
            ("", "12.5", 12.5),
            ("", "1700000012.5", 1_700_000_012.5),
            (
                "#[StartTime: 1700000000.0 (seconds since epoch), Tue Nov 14]\n",
                "12.5",
                1_700_000_012.5,
            ),
            ("#[StartTime: 1700000000.0 (seconds since epoch)]\n", "1700000012.5", 1_700_000_012.5),
            ("#[BaseTime: 1700000000.0 (seconds since epoch)]\n", "12.5", 1_700_000_012.5),
        ] {
            let legend = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";
            // With the line ends of Windows, a tag, an empty line, and no end of the last line.
            let log =
                format!("#a comment\n{header}{legend}\r\n\r\nTag=a,{stamp},1.0,0.0,{payload}");
            let read = read(log.as_bytes()).unwrap();
            assert_eq!(read[0].start.as_secs_f64(), start_s, "{log}");
            assert_eq!(read[0].latency.len(), 1);
        }
    }

    #[test]
    fn what_is_broken_is_named_with_its_line() {
        let good = text(&[interval(Duration::ZERO, &[7; 100])]);
        let last = good.lines().count();
        let broken = |log: &[u8]| read(log).unwrap_err();
        assert_eq!(broken(b"\n\nPNG\n").line, 3);
        assert_eq!(broken(b"\xff\xfe\x00").line, 1);
        assert_eq!(broken(b"{\"requests\": 1.5}").line, 1);
        // Cut off anywhere in its last line, it is not a log, or else one with no interval.
        let start = good.trim_end().rfind('\n').unwrap() + 1;
        for end in start + 1..good.len() - 1 {
            assert_eq!(broken(&good.as_bytes()[..end]).line, last, "{end}");
        }
        // A digit of the histogram is another one.
        let mut changed = good.clone().into_bytes();
        let at = changed.len() - 20;
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        assert!(broken(&changed).what.contains("damaged"));
        // Not a histogram, and not of this version.
        assert!(broken(b"0.0,1.0,0.0,!!!!\n").what.contains("base64"));
        assert!(broken(b"0.0,1.0,0.0,AAAAAAAA\n").what.contains("damaged"));
        let other = b"0.0,1.0,0.0,HISTJAAAAAh4nAMAAAAAAQ==\n";
        assert!(broken(other).what.contains("cannot be read"));
        // Times that cannot be added to each other, or that are no date.
        for (base, stamp) in
            [(0_u64, u64::MAX), (310_000_000_000, 0), (200_000_000_000, 200_000_000_000)]
        {
            let late =
                format!("#[BaseTime: {base}.0 (seconds since epoch)]\n{stamp}.0,1.0,0.0,AAAA\n");
            assert_eq!(broken(late.as_bytes()).what, "the time is out of range", "{late}");
        }
    }
}
