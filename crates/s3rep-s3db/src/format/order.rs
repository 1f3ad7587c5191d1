//! The order of partition fields: `localeCompare` of JavaScript with the root collation, for the names that
//! fields have.

use std::cmp::Ordering;

/// Punctuation and symbols in the order of the root collation; the space comes first.
const MARKS: &str = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";

/// Compares letter by letter without case and accents, then by accents, then lower case before upper case.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let by = |weight: fn(char) -> u32| a.chars().map(weight).cmp(b.chars().map(weight));
    by(primary).then_with(|| by(secondary)).then_with(|| by(tertiary)).then_with(|| a.cmp(b))
}

fn primary(c: char) -> u32 {
    if let Some(at) = MARKS.chars().position(|mark| mark == c) {
        return u32::try_from(at).unwrap_or(0) + 0x100;
    }
    match base(c) {
        digit @ '0'..='9' => 0x1000 + digit as u32,
        letter if letter.is_ascii_alphabetic() => 0x2000 + letter as u32,
        c if c.is_ascii_control() => c as u32,
        c => 0x3000 + c as u32,
    }
}

fn secondary(c: char) -> u32 {
    if base(c) == c.to_ascii_lowercase() { 0 } else { lower(c) as u32 }
}

fn tertiary(c: char) -> u32 {
    u32::from(c.is_uppercase())
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// The letter without case and, for western European letters, without accent.
fn base(c: char) -> char {
    match lower(c) {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => 'c',
        'ď' => 'd',
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => 'e',
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => 'g',
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' => 'i',
        'ñ' | 'ń' | 'ņ' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => 'o',
        'ŕ' | 'ŗ' | 'ř' => 'r',
        'ś' | 'ŝ' | 'ş' | 'š' => 's',
        'ţ' | 'ť' => 't',
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_in_javascript() {
        let sorted = ["_x", "1", "a", "A", "b", "B", "Created", "createdAt", "é", "p", "p.q", "pq", "z"];
        let mut names = sorted;
        names.reverse();
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, sorted);
    }
}
