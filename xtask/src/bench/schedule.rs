//! P12 and P13: scheduling decisions a second in the scheduler alone, without an API server.

use anyhow::Result;

use super::host::Host;
use super::row::{Contender, Figure, Row};

pub(super) const PLAIN: Row = Row {
    id: "P12",
    what: "decisions a second, 2,000 pods on 5,000 nodes, the decider alone (target with binding: 10,000)",
    once: false,
    contenders: |host| contenders(host, &["P12"]),
};

pub(super) const CONSTRAINED: Row = Row {
    id: "P13",
    what: "the same for pods that say something about others or have to make room (target with binding: 3,000)",
    once: false,
    contenders: |host| contenders(host, &["P13"]),
};

fn contenders<'a>(host: &'a Host, words: &'static [&'static str]) -> Result<Vec<Contender<'a>>> {
    let turn = move || {
        let samples = host.drive("decisions", words)?;
        let figure = |(kind, rates): (String, Vec<f64>)| Figure::new(kind, rates.first().copied().unwrap_or_default());
        Ok(samples.into_iter().map(figure).collect())
    };
    Ok(vec![Contender::new("trimtab", turn)])
}
