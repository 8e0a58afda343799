//! The command line's numbers: `10k`, `64KiB`, `250ms`, `'\n'`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A count: `100`, `10k`, `1M`, `1,000`.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    scaled(text, &[("k", 1_000), ("K", 1_000), ("M", 1_000_000)])
        .ok_or_else(|| format!("'{text}' is not a count such as 100, 10k or 1M"))
}

/// A count of at least one.
pub(crate) fn some(text: &str) -> Result<u64, String> {
    count(text).and_then(|n| if n > 0 { Ok(n) } else { Err("at least 1 is needed".to_owned()) })
}

/// The most requests a second: several times what a machine can send.
const RATE_MAX: u64 = 10_000_000;

/// Requests a second: `100`, `10k`; none, or [`RATE_MAX`] at most.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    count(text).and_then(|rate| match rate <= RATE_MAX {
        true => Ok(rate),
        false => Err("10M requests a second are the most".to_owned()),
    })
}

/// A size in bytes: `512`, `64KiB`, `1MiB`, `64k` (binary, as is usual for memory).
pub(crate) fn size(text: &str) -> Result<u32, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("k", 1 << 10),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("B", 1),
    ];
    scaled(text, &units)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("'{text}' is not a size such as 512, 64KiB or 1MiB (below 4GiB)"))
}

/// A size, or a range of them: `64..1KiB`, both ends included.
pub(crate) fn sizes(text: &str) -> Result<RangeInclusive<u32>, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    match (size(min)?, size(max)?) {
        (min, max) if min <= max => Ok(min..=max),
        _ => Err(format!("'{text}' ends before it begins")),
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = units.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let (digits, scale) = split.unwrap_or((text, 1));
    digits.trim().replace(['_', ','], "").parse::<u64>().ok()?.checked_mul(scale)
}

/// The longest duration: 30 days. Clocks here count it in 32 bits of milliseconds and in 64 bits of
/// nanoseconds, and a few of them may be added to each other and to any
/// [`Instant`](std::time::Instant) without an overflow.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A duration: `250ms`, `30s`, `5m`; [`DURATION_MAX`] at most.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => {
            Err(format!("'{text}' is too long: {TOO_LONG}"))
        }
        Err(_) => Err(format!("'{text}' is not a duration such as 250ms, 30s or 5m")),
    }
}

/// Durations that follow each other: [`DURATION_MAX`] at most together.
pub(crate) fn check_sum(durations: impl Iterator<Item = Duration>) -> Result<(), String> {
    match durations.fold(Duration::ZERO, Duration::saturating_add) > DURATION_MAX {
        true => Err(format!("together they are too long: {TOO_LONG}")),
        false => Ok(()),
    }
}

const TOO_LONG: &str = "30d is the most";

/// A duration of a microsecond at least.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        time if time.as_micros() > 0 => Ok(time),
        _ => Err("at least 1us is needed".to_owned()),
    }
}

/// A duration of a microsecond at least, or `off`.
pub(crate) fn duration_or_off(text: &str) -> Result<Timeout, String> {
    match text {
        "off" => Ok(Timeout(None)),
        _ => some_time(text).map(|duration| Timeout(Some(duration))),
    }
}

/// A time-out that may be off. (To clap, an `Option` is an argument that may be absent.)
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

/// One byte: itself, `\n`, `\t`, `\r`, `\0`, `\\` or `0x1e`.
pub(crate) fn byte(text: &str) -> Result<u8, String> {
    let byte = match text {
        "\\n" => b'\n',
        "\\t" => b'\t',
        "\\r" => b'\r',
        "\\0" => b'\0',
        "\\\\" => b'\\',
        _ => match (text.as_bytes(), text.strip_prefix("0x")) {
            (&[byte], _) => byte,
            (_, Some(hex)) if hex.len() <= 2 => {
                u8::from_str_radix(hex, 16).map_err(|_| not_a_byte(text))?
            }
            _ => return Err(not_a_byte(text)),
        },
    };
    Ok(byte)
}

fn not_a_byte(text: &str) -> String {
    format!("'{text}' is not one byte such as x, '\\n', '\\t', '\\0' or 0x1e")
}

/// `12345` as `12,345`.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    // Rounded first: a little less than nothing is nothing.
    if number < 0.0 && text != "0" { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes() {
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("1,000"), Ok(1_000));
        assert_eq!(count("2M"), Ok(2_000_000));
        assert!(count("ten").is_err());
        assert!(count("18446744073709551615k").is_err());
        assert_eq!((rate("0"), rate("10M")), (Ok(0), Ok(10_000_000)));
        assert!(rate("10,000,001").is_err());
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        assert!(size("0").is_err());
        assert!(size("4GiB").is_err());
        assert_eq!((sizes("64"), sizes("64..1KiB")), (Ok(64..=64), Ok(64..=1024)));
        assert!(sizes("2..1").is_err() && sizes("1..").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("5").is_err());
        assert_eq!(duration("30d"), Ok(DURATION_MAX));
        for long in
            ["30d 1ns", "300000000000y", "99999999999999999999999s", "18446744073709551615s"]
        {
            assert!(duration(long).unwrap_err().ends_with("30d is the most"), "{long}");
        }
        assert!(check_sum([DURATION_MAX / 2; 2].into_iter()).is_ok());
        assert!(check_sum([DURATION_MAX / 2; 3].into_iter()).is_err());
        // What the program does with them: it adds several to a time.
        assert!(std::time::Instant::now().checked_add(DURATION_MAX * 10).is_some());
        assert!(duration_or_off("off").unwrap().0.is_none());
    }

    #[test]
    fn bytes() {
        for (text, want) in
            [("x", b'x'), ("\\n", b'\n'), ("\t", b'\t'), ("\\0", 0), ("0x1e", 0x1e), ("0", b'0')]
        {
            assert_eq!(byte(text), Ok(want), "{text:?}");
        }
        for bad in ["", "ab", "0x", "0xyz", "0x100", "ä"] {
            assert!(byte(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [
            (0.0, "0"),
            (-0.4, "0"),
            (999.0, "999"),
            (999.6, "1,000"),
            (1000.0, "1,000"),
            (-1234567.0, "-1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
