//! Number primitives of the format: base 62, decimal, fixed point, batches, and keys in base 36.

use super::js;

const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn digit(byte: u8) -> Option<f64> {
    Some(f64::from(match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'z' => byte - b'a' + 10,
        b'A'..=b'Z' => byte - b'A' + 36,
        _ => return None,
    }))
}

/// Base 62 of the integer part, computed in doubles as s3db.js does: 0 < n < 1 gives empty text.
pub fn base62(n: f64) -> String {
    if !n.is_finite() {
        return "undefined".into();
    }
    if n == 0.0 {
        return "0".into();
    }
    if n < 0.0 {
        return format!("-{}", base62(-n.floor()));
    }
    let mut n = n.floor();
    let mut digits = Vec::new();
    while n > 0.0 {
        // in range: the remainder of a division by 62
        digits.push(DIGITS[((n % 62.0) as usize).min(61)]);
        n = (n / 62.0).floor();
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

/// Reads base 62; `NaN` for a foreign character, 0 for empty text.
pub fn parse_base62(text: &str) -> f64 {
    let (digits, sign) = text.strip_prefix('-').map_or((text, 1.0), |digits| (digits, -1.0));
    let value = digits.bytes().try_fold(0.0, |sum, byte| Some(sum * 62.0 + digit(byte)?));
    value.map_or(f64::NAN, |value| sign * value)
}

/// Base 62 of an unsigned integer, padded with zeros to `width`.
pub(super) fn padded62(mut n: u64, width: usize) -> String {
    let mut digits = Vec::new();
    while n > 0 || digits.len() < width.max(1) {
        digits.push(DIGITS[(n % 62) as usize]);
        n /= 62;
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

/// Reads base 62 without a sign into an integer that fits.
pub(super) fn parse_unsigned62(text: &str) -> Option<u64> {
    text.bytes().try_fold(0_u64, |sum, byte| {
        let digit = digit(byte)? as u64;
        sum.checked_mul(62)?.checked_add(digit)
    })
}

/// Reads base 62 with a sign into an integer that fits in 2^53.
pub(super) fn parse_signed62(text: &str) -> Option<i64> {
    let (digits, sign) = text.strip_prefix('-').map_or((text, 1), |digits| (digits, -1));
    if digits.is_empty() {
        return None;
    }
    let value = parse_unsigned62(digits)?;
    i64::try_from(value).ok().filter(|value| *value <= 1 << 53).map(|value| sign * value)
}

/// The decimal form as s3db.js writes it: base 62 of the integer part, the rest of the decimal text verbatim.
/// Empty for numbers such as `1e-7`.
pub fn decimal(n: f64) -> String {
    if !n.is_finite() {
        return "undefined".into();
    }
    let sign = if n < 0.0 { "-" } else { "" };
    let text = js::number_text(n.abs());
    match text.split_once('.') {
        Some((whole, rest)) => format!("{sign}{}.{rest}", base62(whole.parse().unwrap_or(0.0))),
        None => format!("{sign}{}", base62(n.abs())),
    }
}

/// Reads the decimal form; `NaN` for what is none.
pub fn parse_decimal(text: &str) -> f64 {
    let (digits, sign) = text.strip_prefix('-').map_or((text, 1.0), |digits| (digits, -1.0));
    let Some((whole, rest)) = digits.split_once('.') else {
        return sign * parse_base62(digits);
    };
    let whole = parse_base62(whole);
    if rest.is_empty() || whole.is_nan() {
        return sign * whole;
    }
    // `Number(int + "." + rest)`: the integer part is printed in full and parsed again with the fraction
    let number = |c: u8| c.is_ascii_digit() || matches!(c, b'e' | b'E' | b'+' | b'-');
    let fraction = rest.bytes().all(number) && rest.starts_with(|c: char| c.is_ascii_digit());
    if !fraction {
        return f64::NAN;
    }
    let mut text = js::number_text(whole);
    text.push('.');
    text.push_str(rest);
    sign * text.parse().unwrap_or(f64::NAN)
}

/// The decimal form that reads back as exactly this number, where [`decimal`] does not: `1e-7` is written out
/// as `0.0000001`, `1e300` as `1.0e+300`, and a text that means null or undefined gets a leading zero.
pub(super) fn lossless_decimal(n: f64) -> Option<String> {
    let reads =
        |text: &String| parse_decimal(text) == n && !matches!(text.as_str(), "null" | "undefined" | "");
    let plain = decimal(n);
    if reads(&plain) {
        return Some(plain);
    }
    let sign = if n < 0.0 { "-" } else { "" };
    let text = js::number_text(n.abs());
    let other = if let Some((digits, exponent)) = text.split_once("e-") {
        let zeros = exponent.parse::<usize>().ok()?.checked_sub(1)?;
        format!("{sign}0.{}{}", "0".repeat(zeros), digits.replace('.', ""))
    } else if n.abs() >= js::SAFE {
        let (digits, exponent) = match text.split_once("e+") {
            Some((digits, exponent)) => (digits.replace('.', ""), exponent.parse().ok()?),
            None => (text.clone(), text.len().checked_sub(1)?),
        };
        let (first, rest) = digits.split_at_checked(1)?;
        format!("{sign}{first}.{}e+{exponent}", if rest.is_empty() { "0" } else { rest })
    } else {
        format!("{sign}0{}", plain.trim_start_matches('-'))
    };
    reads(&other).then_some(other)
}

/// The integer form that reads back as exactly this number.
pub(super) fn lossless_integer(n: f64) -> Option<String> {
    let plain = base62(n);
    let text = if matches!(plain.as_str(), "null" | "undefined") { format!("0{plain}") } else { plain };
    (n.fract() == 0.0 && parse_base62(&text) == n).then_some(text)
}

fn round_half_up(n: f64) -> f64 {
    // `Math.round`: half goes toward positive infinity
    let floor = n.floor();
    if n - floor >= 0.5 { floor + 1.0 } else { floor }
}

/// n · 10^p, rounded as `Math.round` does.
pub(super) fn scaled(n: f64, precision: u32) -> f64 {
    round_half_up(n * power(precision))
}

pub(super) fn power(precision: u32) -> f64 {
    10_f64.powi(i32::try_from(precision.min(400)).unwrap_or(400))
}

fn fixed_digits(n: f64, precision: u32) -> String {
    let scaled = scaled(n, precision);
    if !scaled.is_finite() {
        return String::new();
    }
    if scaled < 0.0 { format!("-{}", base62(-scaled)) } else { base62(scaled) }
}

/// Fixed point: `^` and base 62 of n · 10^p.
pub fn fixed(n: f64, precision: u32) -> String {
    format!("^{}", fixed_digits(n, precision))
}

/// Reads fixed point; `NaN` for what is none.
pub fn parse_fixed(text: &str, precision: u32) -> f64 {
    let digits = text.strip_prefix('^').unwrap_or(text);
    if digits.is_empty() {
        return f64::NAN;
    }
    parse_base62(digits) / power(precision)
}

/// Fixed point of many numbers: `^[…,…]`; what is not finite becomes empty.
pub fn batch(items: impl Iterator<Item = f64>, precision: u32) -> String {
    let items: Vec<_> = items.map(|n| fixed_digits(n, precision)).collect();
    format!("^[{}]", items.join(","))
}

/// Reads a batch; `None` when the text is none.
pub fn parse_batch(text: &str, precision: u32) -> Option<Vec<f64>> {
    let items = text.strip_prefix("^[")?.strip_suffix(']')?;
    if items.is_empty() {
        return Some(Vec::new());
    }
    Some(items.split(',').map(|item| parse_fixed(item, precision)).collect())
}

/// The metadata key of an attribute index: base 36.
pub fn key36(mut index: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(DIGITS[(index % 36) as usize]);
        index /= 36;
        if index == 0 {
            break;
        }
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

/// The index of a key, when it is one.
pub(super) fn parse_key36(key: &str) -> Option<u64> {
    let valid = !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if valid { u64::from_str_radix(key, 36).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_plain_form_loses_is_written_in_a_neighbouring_form() {
        for (n, text) in [
            (1e-7, "0.0000001"),
            (-1e-7, "-0.0000001"),
            (5_598_187.0, "0null"),
            (6_631_951_758_436_141.0, "0undefined"),
            (1e300, "1.0e+300"),
            (30.5, "u.5"),
            (1.5e-7, "1.5e-7"),
        ] {
            assert_eq!(lossless_decimal(n).as_deref(), Some(text));
        }
        assert_eq!(lossless_integer(5_598_187.0).as_deref(), Some("0null"));
    }

    proptest! {
        #[test]
        fn every_double_reads_back(n in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            let text = lossless_decimal(n).expect("a form");
            prop_assert_eq!(parse_decimal(&text), n);
        }

        #[test]
        fn integers_read_back(n in -(1_i64 << 53)..=(1_i64 << 53)) {
            let n = n as f64;
            prop_assert_eq!(parse_base62(&lossless_integer(n).expect("a form")), n);
        }

        #[test]
        fn reading_never_panics(text in ".*") {
            parse_base62(&text);
            parse_decimal(&text);
            parse_fixed(&text, 6);
            parse_batch(&text, 6);
            parse_signed62(&text);
            parse_key36(&text);
        }

        #[test]
        fn keys_read_back(index in 0_u64..1_000_000) {
            prop_assert_eq!(parse_key36(&key36(index)), Some(index));
        }
    }
}
