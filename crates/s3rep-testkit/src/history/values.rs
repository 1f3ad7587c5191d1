//! Values that drivers change on the way when nobody looks.

use serde_json::{Value, json};

/// What a value asks of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing unusual.
    Nothing,
    /// U+0000 in text.
    Nul,
    /// Integers that a double cannot hold.
    LargeIntegers,
    /// Integers beyond 64 bits with sign.
    Unsigned,
    /// Doubles far from one.
    ExtremeFloats,
    /// A negative zero.
    NegativeZero,
    /// 64 KB of text and more.
    LongText,
    /// Lists in lists, 40 deep.
    Depth,
    /// Text that some formats take for something else than text.
    Words,
}

/// A value of one attribute of [`schema`](super::schema).
#[derive(Clone, Debug)]
pub struct Awkward {
    /// What it is called in a report.
    pub name: &'static str,
    /// The attribute that may have it.
    pub attribute: &'static str,
    /// The value.
    pub value: Value,
    pub(crate) needs: Needs,
}

/// Which values a history may hold; off where a destination says beforehand that it refuses them.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    /// U+0000 in text.
    pub nul: bool,
    /// Integers that a double cannot hold, such as 2^53 + 1.
    pub large_integers: bool,
    /// Integers beyond `i64::MAX`.
    pub unsigned: bool,
    /// 1e300, 1e-7 and their like.
    pub extreme_floats: bool,
    /// -0.0.
    pub negative_zero: bool,
    /// 64 KB of text and more.
    pub long_text: bool,
    /// Lists in lists, 40 deep.
    pub depth: bool,
    /// Text that some formats take for something else: `null`, JSON.
    pub words: bool,
}

impl Values {
    /// Everything.
    pub const ALL: Self = Self {
        nul: true,
        large_integers: true,
        unsigned: true,
        extreme_floats: true,
        negative_zero: true,
        long_text: true,
        depth: true,
        words: true,
    };
    /// What every destination should hold.
    pub const PLAIN: Self = Self {
        nul: false,
        large_integers: false,
        unsigned: false,
        extreme_floats: false,
        negative_zero: false,
        long_text: false,
        depth: false,
        words: false,
    };

    pub(crate) const fn allow(self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing => true,
            Needs::Nul => self.nul,
            Needs::LargeIntegers => self.large_integers,
            Needs::Unsigned => self.unsigned,
            Needs::ExtremeFloats => self.extreme_floats,
            Needs::NegativeZero => self.negative_zero,
            Needs::LongText => self.long_text,
            Needs::Depth => self.depth,
            Needs::Words => self.words,
        }
    }
}

/// Every awkward value, each for an attribute of [`schema`](super::schema) that may have it.
pub fn awkward() -> Vec<Awkward> {
    use Needs::{Depth, ExtremeFloats, LargeIntegers, LongText, NegativeZero, Nothing, Nul, Unsigned, Words};
    let text = |name, value: &str, needs| Awkward { name, attribute: "note", value: value.into(), needs };
    let count = |name, value: Value, needs| Awkward { name, attribute: "count", value, needs };
    let price = |name, value: Value, needs| Awkward { name, attribute: "price", value, needs };
    let data = |name, value: Value, needs| Awkward { name, attribute: "data", value, needs };
    let of = |name, attribute, value: Value| Awkward { name, attribute, value, needs: Nothing };
    vec![
        text("empty text", "", Nothing),
        text("spaces at both ends", "  padded  ", Nothing),
        text("only a space", " ", Nothing),
        text("U+0000 inside text", "before\u{0}after", Nul),
        text("only U+0000", "\u{0}", Nul),
        text("control characters", "\u{1}\u{8}\u{b}\u{1f}\u{7f}\u{85}\u{2028}", Nothing),
        text("line ends", "a\nb\r\nc\rd", Nothing),
        text("quotes and separators", "a,\"b\";'c'\t`d`\\e\\", Nothing),
        text("the end of a COPY", "\\.\n\\N\n", Nothing),
        text("astral unicode", "👩‍👩‍👧‍👦 𝒳 \u{10ffff}", Nothing),
        text("combining and composed", "e\u{301} é \u{212b} Å", Nothing),
        text("right to left", "\u{202e}abc\u{202c} عربى", Nothing),
        text("a byte order mark", "\u{feff}text", Nothing),
        text("text that looks like null", "null", Words),
        text("text that looks like a number", "00123.450", Nothing),
        text("text that looks like a large number", "1e999", Nothing),
        text("text that looks like JSON", "{\"a\":1}", Words),
        text("text that looks like a formula", "=1+1", Nothing),
        text("text that looks like binary", "\\x00ff", Nothing),
        text("65,536 bytes of text", &"0123456789abcdef".repeat(4096), LongText),
        text("100 KB of text", &"äö😀x".repeat(11_200), LongText),
        of("null where something may be absent", "note", Value::Null),
        count("zero", 0.into(), Nothing),
        count("minus one", (-1).into(), Nothing),
        count("2^31", 2_147_483_648_i64.into(), Nothing),
        count("2^53", 9_007_199_254_740_992_i64.into(), Nothing),
        count("2^53 + 1", 9_007_199_254_740_993_i64.into(), LargeIntegers),
        count("i64::MAX", i64::MAX.into(), LargeIntegers),
        count("i64::MIN", i64::MIN.into(), LargeIntegers),
        count("i64::MIN + 1", (i64::MIN + 1).into(), LargeIntegers),
        count("i64::MAX + 1", (i64::MAX as u64 + 1).into(), Unsigned),
        count("u64::MAX", u64::MAX.into(), Unsigned),
        price("an integer in a number", 7.into(), Nothing),
        price("2^53 + 1 in a number", 9_007_199_254_740_993_i64.into(), LargeIntegers),
        price("u64::MAX in a number", u64::MAX.into(), Unsigned),
        price("0.1", 0.1.into(), Nothing),
        price("0.1 + 0.2", (0.1 + 0.2).into(), Nothing),
        price("1/3", (1.0 / 3.0).into(), Nothing),
        price("1e-7", 1e-7.into(), ExtremeFloats),
        price("1e21", 1e21.into(), ExtremeFloats),
        price("1e300", 1e300.into(), ExtremeFloats),
        price("-1.7976931348623157e308", f64::MIN.into(), ExtremeFloats),
        price("5e-324", 5e-324.into(), ExtremeFloats),
        price("negative zero", (-0.0).into(), NegativeZero),
        of("true", "active", true.into()),
        of("false", "active", false.into()),
        of("an empty list", "tags", json!([])),
        of("a list of empty texts", "tags", json!(["", " ", "a,b", "\"", "null"])),
        of("an empty object", "profile", json!({})),
        of("an object with a null", "profile", json!({"bio": null, "age": 3})),
        of("text in JSON", "data", json!("just text")),
        of("text of a number in JSON", "data", json!("12")),
        of("a number in JSON", "data", json!(12)),
        of("true in JSON", "data", json!(true)),
        of("members in an unusual order", "data", json!({"z": 1, "a": 2, "10": 3, "9": 4, "": 5})),
        of(
            "members with awkward names",
            "data",
            json!({"a.b": 1, "$c": 2, "d e": 3, "é": 4, "__proto__": 5}),
        ),
        of("lists of lists", "data", json!([[], [[]], [1, [2, [3, [4]]]], {}, [{}]])),
        data("2^53 + 1 in JSON", json!({"n": [9_007_199_254_740_993_i64]}), LargeIntegers),
        data("u64::MAX in JSON", json!({"n": u64::MAX}), Unsigned),
        data("1e300 in JSON", json!({"n": [1e300, 1e-7]}), ExtremeFloats),
        data("U+0000 in JSON", json!({"t": "a\u{0}b"}), Nul),
        data("deep JSON", (0..40).fold(json!("deep"), |value, _| json!([value])), Depth),
        of("a time with milliseconds", "seen", "2026-02-28T23:59:59.999Z".into()),
        of("a time before 1970", "seen", "1815-12-10T00:00:00.001Z".into()),
        of("a leap day", "day", "2024-02-29".into()),
        of("a secret", "pin", "p@ss'word\"; --".into()),
    ]
}
