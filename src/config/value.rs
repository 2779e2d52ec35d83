//! Reading the values of settings.

use std::time::Duration;

/// Reads a number of bytes: `1048576`, `100MiB`, `1.5 GB`.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            // The largest whole number that a float holds exactly.
            (bytes.fract() == 0.0 && (0.0..9.0e15).contains(&bytes)).then_some(bytes as u64)
        }
    }
}

/// Reads a length of time: `30`, `30s`, `5m`, `24h`; at least a millisecond, at most a year.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * factor;
    (0.001..=31_536_000.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// The parts of a comma-separated list, without white space around them and without empty ones.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The parts of a text that has one in each line, or, if it is one line, of a list.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    let separator = if text.contains('\n') { '\n' } else { ',' };
    text.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("104857600", 104_857_600),
            ("100MiB", 104_857_600),
            ("1 kb", 1000),
            ("1.5GiB", 1_610_612_736),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "many", "-1", "1XB", "1.5", "99999999TiB", "0.3KiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_take_seconds_minutes_and_hours() {
        for (text, seconds) in [("30", 30.0), ("1.5s", 1.5), ("5m", 300.0), ("24h", 86_400.0), ("50ms", 0.05)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "0", "-3", "soon", "400d", "1w"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
