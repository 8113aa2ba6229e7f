//! Label selectors (`k8s.io/apimachinery/pkg/labels`), from text and from `metav1.LabelSelector`.

use std::fmt;

use serde_json::Value;

use super::parse::{parse, requirement};

/// How a requirement relates a label to its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LabelRequirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// All requirements must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Reads `app=x,tier in (a, b),!old`. The error is upstream's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(Self::of)
    }

    fn of(mut requirements: Vec<LabelRequirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// From a `metav1.LabelSelector`: absent selects nothing, an empty one everything. The error is upstream's text.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, String> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return Ok(Self::nothing()) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let equal = labels.map(|(key, value)| requirement(key.clone(), Operator::Equals, vec![text(value)]));
        let expressions = selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
        Ok(Self::of(equal.chain(expressions.map(expression)).collect::<Result<_, _>>()?))
    }

    /// From a plain map of labels that must all be equal (a Service's selector).
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| LabelRequirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        Self::of(labels.into_iter().map(requirement).collect())
    }

    /// Its requirements, sorted by key.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether an object with these labels is selected; `label` gives a label's value.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Whether a document's labels are selected.
    pub fn selects(&self, document: &crate::Document) -> bool {
        let labels = document.at("/metadata/labels");
        self.matches(|key| labels?.get(key)?.as_str())
    }
}

/// One of a LabelSelector's `matchExpressions`.
fn expression(expression: &Value) -> Result<LabelRequirement, String> {
    let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(format!("{other:?} is not a valid label selector operator")),
    };
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
    requirement(text("key").to_owned(), operator, values)
}

impl LabelRequirement {
    /// Whether a label's value (or its absence) meets the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let has = |value| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(has),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compares(value, |value, bound| value > bound),
            Operator::LessThan => self.compares(value, |value, bound| value < bound),
        }
    }

    fn compares(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match (value.and_then(number), self.values.as_slice()) {
            (Some(value), [bound]) => number(bound).is_some_and(|bound| holds(value, bound)),
            _ => false,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.values.clone();
        values.sort();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::LabelSelector;

    #[test]
    fn selectors_read_back_as_upstream_writes_them() {
        let cases = [
            ("", ""),
            ("app=web", "app=web"),
            (" tier in (b,a), !old ,app == web", "app==web,!old,tier in (a,b)"),
            ("x notin (),y", "x notin (),y"),
            ("x in (a,,b)", "x in (,a,b)"),
            ("a!=", "a!="),
            ("in in (in,notin)", "in in (in,notin)"),
            ("n>5,m<6", "m<6,n>5"),
        ];
        for (text, shown) in cases {
            assert_eq!(LabelSelector::parse(text).expect(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn faults_are_upstream_s() {
        let cases = [
            ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("app=web tier=back", "found 'tier', expected: ',' or 'end of string'"),
            ("app=web,", "found '', expected: identifier after ','"),
            (",app=web", "found ',', expected: !, identifier, or 'end of string'"),
            ("app===web", "unable to parse requirement: found '=', expected: identifier"),
            ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ];
        for (text, error) in cases {
            assert_eq!(LabelSelector::parse(text).err().as_deref(), Some(error), "{text}");
        }
        let error = LabelSelector::parse(&format!("app={}", "a".repeat(65))).expect_err("too long");
        assert!(error.starts_with("unable to parse requirement: values[0][app]: Invalid value: \"aaa"), "{error}");
        let error = LabelSelector::parse("-a=b").expect_err("a bad key");
        assert!(
            error.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"),
            "{error}"
        );
    }

    #[test]
    fn absence_selects_nothing_and_emptiness_everything() {
        let of = |selector| LabelSelector::from_object(Some(&selector)).expect("valid");
        assert!(LabelSelector::from_object(None).expect("valid").requirements().is_empty());
        assert!(!LabelSelector::from_object(None).expect("valid").matches(|_| Some("x")));
        assert!(of(json!({})).is_empty() && of(json!({})).matches(|_| None));
        let selector = of(json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "NotIn", "values": ["2"]}, {"key": "c", "operator": "DoesNotExist"}]}));
        let labels = |b: Option<&'static str>| {
            move |key: &str| match key {
                "a" => Some("1"),
                "b" => b,
                _ => None,
            }
        };
        assert!(selector.matches(labels(None)) && selector.matches(labels(Some("3"))));
        assert!(!selector.matches(labels(Some("2"))) && !selector.matches(|_| None));
        assert!(
            LabelSelector::from_object(Some(&json!({"matchExpressions": [{"key": "a", "operator": "Has"}]}))).is_err()
        );
    }
}
