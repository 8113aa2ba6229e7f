//! Numbers that may be percentages (`k8s.io/apimachinery/pkg/util/intstr`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A number, or a percentage of `total`, rounded up or down. What is neither is 0; validation refuses it.
pub(crate) fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or_default();
            let hundredths = percent * i64::from(total);
            let rounded = if up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// A quotient rounded half away from zero, as Go's `math.Round` does.
pub(crate) fn rounded(numerator: i64, denominator: i64) -> i32 {
    let doubled = 2 * numerator + if numerator < 0 { -denominator } else { denominator };
    i32::try_from(doubled / (2 * denominator)).unwrap_or(i32::MAX)
}
