//! Dates and times as JavaScript's `Date` reads and prints them, in UTC.

use serde_json::Value;

use super::js;

const DAY: i64 = 86_400_000;

/// What a `Date` can hold: 100,000,000 days to either side of 1970.
const RANGE: i64 = 8_640_000_000_000_000;

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// Appends a number of so many digits.
fn digits(out: &mut String, n: i64, width: u32) {
    for at in (0..width).rev() {
        let digit = n / 10_i64.pow(at) % 10;
        out.push(char::from(b'0' + u8::try_from(digit).unwrap_or(0)));
    }
}

fn push_date(out: &mut String, days: i64) {
    let (year, month, day) = civil(days);
    if (0..=9999).contains(&year) {
        digits(out, year, 4);
    } else {
        out.push(if year < 0 { '-' } else { '+' });
        digits(out, year.abs(), 6);
    }
    out.push('-');
    digits(out, month, 2);
    out.push('-');
    digits(out, day, 2);
}

fn push_clock(out: &mut String, ms: i64) {
    for (n, width, mark) in
        [(ms / 3_600_000, 2, ':'), (ms / 60_000 % 60, 2, ':'), (ms / 1000 % 60, 2, '.'), (ms % 1000, 3, ' ')]
    {
        digits(out, n, width);
        if mark != ' ' {
            out.push(mark);
        }
    }
}

/// `toISOString()`: `2024-01-02T03:04:05.678Z`.
pub(super) fn iso(ms: i64) -> Option<String> {
    if !(-RANGE..=RANGE).contains(&ms) {
        return None;
    }
    let mut text = String::with_capacity(27);
    push_date(&mut text, ms.div_euclid(DAY));
    text.push('T');
    push_clock(&mut text, ms.rem_euclid(DAY));
    text.push('Z');
    Some(text)
}

/// `2024-01-02` of a number of days.
pub(super) fn date(days: i64) -> Option<String> {
    if !(-RANGE / DAY..=RANGE / DAY).contains(&days) {
        return None;
    }
    let mut text = String::with_capacity(13);
    push_date(&mut text, days);
    Some(text)
}

/// `03:04:05.678` of the milliseconds of a day.
pub(super) fn clock(ms: i64) -> String {
    let mut text = String::with_capacity(12);
    push_clock(&mut text, ms);
    text
}

/// Milliseconds of an ISO date or date and time, or of a number of milliseconds. A time without an offset is
/// taken as UTC, where JavaScript would take the zone of the machine.
pub(super) fn instant(value: &Value) -> Option<i64> {
    let ms = match value {
        Value::String(text) => parse(js::trim(text))?,
        Value::Number(n) => {
            let ms = n.as_f64()?.trunc();
            if ms.abs() <= RANGE as f64 { ms as i64 } else { return None }
        }
        _ => return None,
    };
    (-RANGE..=RANGE).contains(&ms).then_some(ms)
}

/// Days since 1970 of the same inputs.
pub(super) fn day(value: &Value) -> Option<i64> {
    instant(value).map(|ms| ms.div_euclid(DAY))
}

/// A reader of digits and marks.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn take(&mut self, mark: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == mark => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, rest) = self.0.split_at_checked(digits)?;
        let value = head
            .iter()
            .try_fold(0_i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))?;
        self.0 = rest;
        Some(value)
    }

    /// Milliseconds of a fraction of a second; more than three digits are cut.
    fn fraction(&mut self) -> Option<i64> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (head, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        if head.is_empty() {
            return None;
        }
        let digit = |at: usize| head.get(at).map_or(0, |b| i64::from(b - b'0'));
        Some(digit(0) * 100 + digit(1) * 10 + digit(2))
    }

    /// `HH:MM`, `HH:MM:SS`, `HH:MM:SS.mmm` as milliseconds.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2)?;
        if !self.take(b':') {
            return None;
        }
        let minute = self.number(2)?;
        let second = if self.take(b':') { self.number(2)? } else { 0 };
        let fraction = if self.take(b'.') { self.fraction()? } else { 0 };
        let whole = hour == 24 && minute == 0 && second == 0 && fraction == 0;
        if (hour > 23 && !whole) || minute > 59 || second > 59 {
            return None;
        }
        Some(hour * 3_600_000 + minute * 60_000 + second * 1000 + fraction)
    }

    /// Milliseconds to subtract for `Z`, `+05:30` or `-0300`.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.take(b'Z') {
            return Some(0);
        }
        let sign = if self.take(b'+') {
            1
        } else if self.take(b'-') {
            -1
        } else {
            return None;
        };
        let hours = self.number(2)?;
        self.take(b':');
        let minutes = self.number(2)?;
        (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000)
    }
}

fn parse(text: &str) -> Option<i64> {
    let mut scanner = Scanner(text.as_bytes());
    let year = if scanner.take(b'+') {
        scanner.number(6)?
    } else if scanner.take(b'-') {
        -scanner.number(6)?
    } else {
        scanner.number(4)?
    };
    let mut month = 1;
    let mut day = 1;
    if scanner.take(b'-') {
        month = scanner.number(2)?;
        if scanner.take(b'-') {
            day = scanner.number(2)?;
        }
    }
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || civil(days(year, month, day)) != (year, month, day)
    {
        return None;
    }
    let mut ms = days(year, month, day) * DAY;
    if scanner.take(b'T') || scanner.take(b't') || scanner.take(b' ') {
        ms += scanner.clock()?;
        ms -= scanner.offset()?;
    }
    scanner.0.is_empty().then_some(ms)
}

/// Milliseconds of a day: `12:34`, `12:34:56`, `12:34:56.7`, or the time of an ISO text in UTC.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let text = js::trim(text);
    if text.len() > 12 {
        return parse(text).map(|ms| ms.rem_euclid(DAY));
    }
    let mut scanner = Scanner(text.as_bytes());
    let ms = scanner.clock()?;
    (scanner.0.is_empty() && ms < DAY).then_some(ms)
}

/// Milliseconds of a duration: a number, `PT1H30M`, `1h30m`, `250ms`, `1.5d`.
pub(super) fn duration(value: &Value) -> Option<i64> {
    let ms = match value {
        Value::Number(n) => n.as_f64()?,
        Value::String(text) => {
            let text = js::trim(text);
            match text.strip_prefix(['P', 'p']) {
                Some(rest) => iso_duration(rest)?,
                None => parts(text, |unit| {
                    Some(match unit {
                        "ms" => 1.0,
                        "s" => 1e3,
                        "m" | "min" => 6e4,
                        "h" => 3.6e6,
                        "d" => 8.64e7,
                        "w" => 6.048e8,
                        _ => return None,
                    })
                })?,
            }
        }
        _ => return None,
    };
    (ms.is_finite() && (0.0..=js::SAFE).contains(&ms)).then(|| ms.round() as i64)
}

fn iso_duration(text: &str) -> Option<f64> {
    let upper = text.to_ascii_uppercase();
    let (date, time) = upper.split_once('T').unwrap_or((&upper, ""));
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let days = |unit: &str| match unit {
        "W" => Some(6.048e8),
        "D" => Some(8.64e7),
        _ => None,
    };
    let clock = |unit: &str| match unit {
        "H" => Some(3.6e6),
        "M" => Some(6e4),
        "S" => Some(1e3),
        _ => None,
    };
    let part = |text: &str, scale: &dyn Fn(&str) -> Option<f64>| {
        if text.is_empty() { Some(0.0) } else { parts(text, scale) }
    };
    Some(part(date, &days)? + part(time, &clock)?)
}

/// The sum of numbers with units.
fn parts(text: &str, scale: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let (mut rest, mut sum) = (text, 0.0);
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        sum += number.parse::<f64>().ok()?
            * scale(unit.trim().to_ascii_lowercase().as_str()).or_else(|| scale(unit.trim()))?;
        rest = tail;
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

/// `P[nD]T[nH][nM][n[.mmm]S]`; zero is `PT0S`.
pub(super) fn duration_text(ms: i64) -> Option<String> {
    if ms < 0 {
        return None;
    }
    if ms == 0 {
        return Some("PT0S".into());
    }
    let mut text = String::from("P");
    if ms >= DAY {
        text.push_str(&format!("{}D", ms / DAY));
    }
    let rest = ms % DAY;
    if rest > 0 {
        text.push('T');
        for (unit, size, limit) in [('H', 3_600_000, 24), ('M', 60_000, 60)] {
            let count = rest / size % limit;
            if count > 0 {
                text.push_str(&format!("{count}{unit}"));
            }
        }
        match (rest / 1000 % 60, rest % 1000) {
            (0, 0) => {}
            (seconds, 0) => text.push_str(&format!("{seconds}S")),
            (seconds, ms) => text.push_str(&format!("{seconds}.{ms:03}S")),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn instants_print_and_read_back(ms in -RANGE..=RANGE) {
            let text = iso(ms).expect("in range");
            prop_assert_eq!(instant(&json!(text)), Some(ms));
        }

        #[test]
        fn durations_print_and_read_back(ms in 0..1_i64 << 50) {
            let text = duration_text(ms).expect("not negative");
            prop_assert_eq!(duration(&json!(text)), Some(ms), "{}", text);
        }

        #[test]
        fn reading_never_panics(text in ".*|[-+0-9TZ:.]*|P?[0-9.]*[a-zA-Z]*") {
            instant(&json!(text));
            duration(&json!(text));
            time_of_day(&text);
        }
    }

    #[test]
    fn forms_of_javascript_are_read() {
        for (text, iso_text) in [
            ("2024-01-02", "2024-01-02T00:00:00.000Z"),
            ("2024", "2024-01-01T00:00:00.000Z"),
            ("2024-06-01T10:00:00+05:30", "2024-06-01T04:30:00.000Z"),
            ("2024-01-02T03:04:05.678901Z", "2024-01-02T03:04:05.678Z"),
            ("+010000-01-01T00:00:00.000Z", "+010000-01-01T00:00:00.000Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(instant(&json!(text)).and_then(iso).as_deref(), Some(iso_text));
        }
        for text in ["nope", "", "2024-02-30", "2024-01-01T25:00Z", "2024-01-01T00:00:60Z", "2024-1-1"] {
            assert_eq!(instant(&json!(text)), None, "{text}");
        }
        assert_eq!(duration(&json!("1h30m")), Some(5_400_000));
        assert_eq!(duration(&json!("1.5d")), Some(129_600_000));
        assert_eq!(duration(&json!("P1DT2H3M4.5S")), Some(93_784_500));
        assert_eq!(time_of_day("24:00"), None);
    }
}
