//! Quantities: `500m`, `1.5Gi`, `12e6` (`k8s.io/apimachinery/pkg/api/resource`).
//!
//! Exact to 38 digits; Go's are unbounded, but no quantity that means anything needs more.

use std::cmp::Ordering;
use std::fmt;

/// Why a text is no quantity: upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not look like one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is none that is known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuantityFormat {
    /// `12e6`.
    DecimalExponent,
    /// `12Mi`.
    BinarySi,
    /// `12M`.
    #[default]
    DecimalSi,
}

/// A fixed-point number with the way it is written: `value` times ten to the power `scale` (at least -9).
#[derive(Clone, Debug, Default)]
pub struct Quantity {
    value: i128,
    scale: i32,
    format: QuantityFormat,
    /// The text it was read from, where that is kept.
    text: Option<Box<str>>,
}

const NANO: i32 = -9;
const DECIMAL: [(i32, &str); 10] =
    [(-9, "n"), (-6, "u"), (-3, "m"), (0, ""), (3, "k"), (6, "M"), (9, "G"), (12, "T"), (15, "P"), (18, "E")];
const BINARY: [(u32, &str); 6] = [(10, "Ki"), (20, "Mi"), (30, "Gi"), (40, "Ti"), (50, "Pi"), (60, "Ei")];

/// The parts of a quantity's text.
struct Parts<'a> {
    positive: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl Quantity {
    /// A whole number.
    pub fn new(value: i64, format: QuantityFormat) -> Self {
        Self { value: value.into(), scale: 0, format, text: None }
    }

    /// A number of thousandths.
    pub fn milli(value: i64, format: QuantityFormat) -> Self {
        Self { value: value.into(), scale: -3, format, text: None }
    }

    /// Reads a quantity. What is finer than a nano is rounded up.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let parts = split(text)?;
        let (base_two, exponent, format) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
        if base_two { parse_binary(text, &parts, exponent) } else { parse_decimal(text, &parts, exponent, format) }
    }

    /// The number rounded up (away from zero) to a whole one; saturates.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// The number of thousandths, rounded up; saturates.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The number in units of ten to the power `scale`, rounded up (away from zero); saturates.
    pub fn scaled(&self, scale: i32) -> i64 {
        let (value, _) = rescale(self.value, self.scale, scale);
        value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Approximately, as a float.
    pub fn approximate(&self) -> f64 {
        self.value as f64 * 10f64.powi(self.scale)
    }

    /// Whether it is nought.
    pub fn is_zero(&self) -> bool {
        self.value == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.value.signum() as i32
    }

    /// How it is written.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }

    /// Adds; a zero takes over the other's format.
    pub fn add(&mut self, other: &Self) {
        self.join(other, i128::saturating_add);
    }

    /// Subtracts; a zero takes over the other's format.
    pub fn sub(&mut self, other: &Self) {
        self.join(other, i128::saturating_sub);
    }

    /// The negative.
    pub fn neg(&self) -> Self {
        Self { value: -self.value, text: None, ..*self }
    }

    fn join(&mut self, other: &Self, op: fn(i128, i128) -> i128) {
        if self.is_zero() {
            self.format = other.format;
        }
        let scale = self.scale.min(other.scale);
        let (a, _) = rescale(self.value, self.scale, scale);
        let (b, _) = rescale(other.value, other.scale, scale);
        (self.value, self.scale, self.text) = (op(a, b), scale, None);
    }

    fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".into();
        }
        if self.format == QuantityFormat::BinarySi
            && let Some(text) = self.canonical_binary()
        {
            return text;
        }
        let (mut value, mut exponent) = strip(self.value, self.scale, 10);
        while exponent.rem_euclid(3) != 0 {
            (value, exponent) = (value.saturating_mul(10), exponent - 1);
        }
        let suffix = match self.format {
            QuantityFormat::DecimalExponent if exponent == 0 => String::new(),
            QuantityFormat::DecimalExponent => format!("e{exponent}"),
            _ => DECIMAL.iter().find(|(e, _)| *e == exponent).map_or("", |(_, s)| s).into(),
        };
        format!("{value}{suffix}")
    }

    /// The form with a power of 1024; `None` where that would be small or lose something.
    fn canonical_binary(&self) -> Option<String> {
        let (whole, exact) = rescale(self.value, self.scale, 0);
        if !exact || whole.abs() < 1024 {
            return None;
        }
        let (value, times) = strip(whole, 0, 1024);
        let power = u32::try_from(times).ok()? * 10;
        let suffix = BINARY.iter().find(|(e, _)| *e == power).map_or("", |(_, s)| s);
        Some(format!("{value}{suffix}"))
    }
}

/// Moves factors out of a value into its exponent.
fn strip(mut value: i128, mut exponent: i32, factor: i128) -> (i128, i32) {
    while value != 0 && value % factor == 0 {
        (value, exponent) = (value / factor, exponent + 1);
    }
    (value, exponent)
}

/// The value at another scale, rounded away from zero, and whether that was exact. Saturates.
fn rescale(value: i128, from: i32, to: i32) -> (i128, bool) {
    let distance = from.abs_diff(to);
    match (10i128.checked_pow(distance), from >= to) {
        (Some(factor), true) => (value.saturating_mul(factor), true),
        (Some(factor), false) => {
            let exact = value % factor == 0;
            (value / factor + if exact { 0 } else { value.signum() }, exact)
        }
        (None, true) => (if value == 0 { 0 } else { value.signum() * i128::MAX }, value == 0),
        (None, false) => (value.signum(), value == 0),
    }
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let positive = !text.starts_with('-');
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits(unsigned);
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if exponent.bytes().all(|b| b.is_ascii_digit()) {
        Ok(Parts { positive, whole: whole.trim_start_matches('0'), fraction, suffix })
    } else {
        Err(QuantityError::Format)
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Whether the base is two, the exponent, and the format.
fn suffix(text: &str) -> Option<(bool, i32, QuantityFormat)> {
    if let Some((exponent, _)) = DECIMAL.iter().find(|(_, s)| *s == text) {
        return Some((false, *exponent, QuantityFormat::DecimalSi));
    }
    if let Some((exponent, _)) = BINARY.iter().find(|(_, s)| *s == text) {
        return Some((true, *exponent as i32, QuantityFormat::BinarySi));
    }
    let exponent = text.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty())?;
    Some((false, exponent.parse().ok()?, QuantityFormat::DecimalExponent))
}

/// Every digit of the number as one, without the point.
fn shifted(parts: &Parts<'_>) -> Result<i128, QuantityError> {
    let whole = if parts.whole.is_empty() { "0" } else { parts.whole };
    format!("{whole}{}", parts.fraction).parse().map_err(|_| QuantityError::Numeric)
}

/// Up to this many digits Go keeps the number in an int64, and the text as it was where that was canonical.
const FAST_DIGITS: usize = 18;

fn parse_decimal(
    text: &str,
    parts: &Parts<'_>,
    exponent: i32,
    format: QuantityFormat,
) -> Result<Quantity, QuantityError> {
    let value = shifted(parts)?;
    let scale = exponent.saturating_sub(i32::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?);
    let length = parts.whole.len().max(1) + parts.fraction.len();
    let fast = length <= FAST_DIGITS && scale >= NANO;
    let round = |ends: &str| ends.ends_with("000");
    let last = if parts.fraction.len() >= 3 { parts.fraction } else { &format!("{}{}", parts.whole, parts.fraction) };
    let kept = fast && scale % 3 == 0 && !round(last) && parts.whole.starts_with(|c| c != '0');
    let value = if parts.positive { value } else { -value };
    let (value, scale) = if scale < NANO { (rescale(value, scale, NANO).0, NANO) } else { (value, scale) };
    Ok(Quantity { value, scale, format, text: kept.then(|| text.into()) })
}

fn parse_binary(text: &str, parts: &Parts<'_>, exponent: i32) -> Result<Quantity, QuantityError> {
    let digits = shifted(parts)?;
    let factor = 1i128 << exponent.clamp(0, 60);
    let length = parts.whole.len().max(1);
    let fast = parts.fraction.is_empty() && length + (exponent * 3 / 10) as usize <= 14;
    let kept = fast && digits & 7 != 0;
    let scale = -i32::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let product = digits.checked_mul(factor).ok_or(QuantityError::Numeric)?;
    let (value, scale) = if scale < NANO { (rescale(product, scale, NANO).0, NANO) } else { (product, scale) };
    let most = rescale(i64::MAX.into(), 0, scale).0;
    let value = value.min(most);
    let small = value > 0 && rescale(value, scale, 0) == (1, false);
    let format = if small { QuantityFormat::DecimalSi } else { QuantityFormat::BinarySi };
    let value = if parts.positive { value } else { -value };
    Ok(Quantity { value, scale, format, text: kept.then(|| text.into()) })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.canonical()),
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, a_scale) = strip(self.value, self.scale, 10);
        let (b, b_scale) = strip(other.value, other.scale, 10);
        let scale = a_scale.min(b_scale);
        rescale(a, a_scale, scale).0.cmp(&rescale(b, b_scale, scale).0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Quantity, QuantityError, QuantityFormat};

    #[test]
    fn quantities_are_written_as_go_writes_them() {
        let cases = [
            ("0", "0"),
            ("0.0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1.500", "1.500"),
            ("+5", "+5"),
            ("01", "01"),
            ("-1.5Gi", "-1536Mi"),
            ("1Gi", "1Gi"),
            ("1024Ki", "1Mi"),
            ("1000Ki", "1000Ki"),
            ("1025Ki", "1025Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("512Ki", "512Ki"),
            ("1000000", "1M"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("1E", "1E"),
            ("1e-3", "1e-3"),
            ("12e-1", "1200e-3"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("100k", "100k"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775808"),
            ("16Ei", "9223372036854775807"),
            ("5.", "5."),
            (".5", "500m"),
        ];
        for (text, shown) in cases {
            assert_eq!(Quantity::parse(text).expect(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        let cases = [
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("{", QuantityError::Format),
            ("1Kii", QuantityError::Suffix),
            ("1Mm", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
        ];
        for (text, error) in cases {
            assert_eq!(Quantity::parse(text).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn values_round_up_and_compare_across_forms() {
        let q = |text| Quantity::parse(text).expect("valid");
        assert_eq!((q("100m").value(), q("1500m").value(), q("-1500m").value()), (1, 2, -2));
        assert_eq!((q("1.5").milli_value(), q("1n").milli_value(), q("1Ki").milli_value()), (1500, 1, 1_024_000));
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("1e40") > q("1Ei") && q("-1") < q("0"));
        let mut sum = Quantity::default();
        sum.add(&q("512Mi"));
        sum.add(&q("512Mi"));
        assert_eq!((sum.to_string().as_str(), sum.format()), ("1Gi", QuantityFormat::BinarySi));
        sum.sub(&q("1Gi"));
        assert!(sum.is_zero());
        let mut cpu = q("250m");
        cpu.add(&q("0.75"));
        assert_eq!(cpu.to_string(), "1");
    }

    proptest! {
        #[test]
        fn the_canonical_form_reads_back_equal(
            number in -1_000_000_000_000i64..1_000_000_000_000,
            fraction in proptest::option::of(0u32..100_000),
            suffix in prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "e3", "e-3", "E2"]),
        ) {
            let fraction = fraction.map(|f| format!(".{f}")).unwrap_or_default();
            let quantity = Quantity::parse(&format!("{number}{fraction}{suffix}")).expect("valid");
            let canonical = quantity.canonical();
            let again = Quantity::parse(&canonical).expect("valid");
            prop_assert_eq!(&again, &quantity);
            prop_assert_eq!(again.canonical(), canonical);
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eEinumkKMGTP]{0,45}") {
            let _ = Quantity::parse(&text).map(|q| (q.to_string(), q.value(), q.milli_value()));
        }
    }
}
