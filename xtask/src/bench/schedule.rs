//! P12 and P13: scheduling decisions a second in the scheduler alone, without an API server.

use anyhow::Result;

use super::host::Host;
use super::row::{Contender, Figure, Row};

pub(super) const ROW: Row = Row {
    id: "P12",
    what: "decisions a second, 2,000 pods on 5,000 nodes, the decider alone (target with binding: 10,000)",
    once: false,
    contenders,
};

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let turn = || {
        let samples = host.drive("decisions", &[])?;
        let figure = |(kind, rates): (String, Vec<f64>)| Figure::new(kind, rates.first().copied().unwrap_or_default());
        Ok(samples.into_iter().map(figure).collect())
    };
    Ok(vec![Contender::new("trimtab", turn)])
}
