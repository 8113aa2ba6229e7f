//! Sums of quantities by name (`k8s.io/apiserver/pkg/quota/v1/resources.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::Quantity;

/// A `ResourceList`: quantities by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a `ResourceList`; what is no quantity is left out (validation has refused it before).
pub fn read(list: Option<&Value>) -> Amounts {
    let pairs = list.and_then(Value::as_object).into_iter().flatten();
    let read = |(name, value): (&String, &Value)| Some((name.clone(), quantity(value)?));
    pairs.filter_map(read).collect()
}

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The JSON form of a `ResourceList`.
pub fn write(amounts: &Amounts) -> Value {
    Value::Object(amounts.iter().map(|(name, q)| (name.clone(), q.to_string().into())).collect::<Map<_, _>>())
}

/// Adds each of `more` to `into`.
pub fn add(into: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        into.entry(name.clone()).and_modify(|sum| sum.add(amount)).or_insert_with(|| amount.clone());
    }
}

/// Raises each in `into` to at least that of `to`.
pub fn raise(into: &mut Amounts, to: &Amounts) {
    for (name, amount) in to {
        let now = into.entry(name.clone()).or_insert_with(|| amount.clone());
        if *now < *amount {
            *now = amount.clone();
        }
    }
}

/// By how much `new` is more than `old`; what is not more is left out.
pub fn increase(new: &Amounts, old: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &Quantity)| {
        let mut amount = amount.clone();
        if let Some(before) = old.get(name) {
            amount.sub(before);
        }
        (amount.sign() > 0).then(|| (name.clone(), amount))
    };
    new.iter().filter_map(more).collect()
}

/// Those with these names.
pub fn mask(amounts: &Amounts, keep: impl Fn(&str) -> bool) -> Amounts {
    amounts.iter().filter(|(name, _)| keep(name)).map(|(name, amount)| (name.clone(), amount.clone())).collect()
}

/// `cpu=1,pods=2`, as errors show them.
pub fn show(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}
