//! Limits on memory.

use oci_spec::runtime::LinuxMemory;

use super::{Controller, Setting};
use crate::cgroup::read;
use crate::{Error, Result};

/// The limit that is there on v2, if there is one.
pub(super) fn limit_now(controller: Controller<'_, '_>) -> Option<i64> {
    let (dir, _) = controller("memory").filter(|(_, v2)| *v2)?;
    read(dir, "memory.max").ok()?.trim().parse().ok()
}

/// `now` is the limit that stays where none is said.
pub(super) fn settings(memory: &LinuxMemory, now: Option<i64>) -> Result<Vec<Setting>> {
    let field = |field| Setting::new("memory", field);
    let max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    let said = |bytes: Option<i64>| bytes.filter(|bytes| *bytes != 0);
    let (limit, reservation) = (said(memory.limit()), said(memory.reservation()));
    // Without a limit on memory there is none on both together.
    let swap = said(memory.swap()).or_else(|| limit.filter(|limit| *limit < 0));
    if let Some(swappiness) = memory.swappiness().filter(|swappiness| *swappiness > 100) {
        return Err(Error::Invalid(format!("linux.resources.memory.swappiness: {swappiness} is not in 0 to 100")));
    }
    let mut settings = Vec::new();
    if let Some(swap) = swap {
        // v2 counts swap alone.
        let only = match limit {
            _ if swap < 0 => -1,
            Some(limit) if limit >= 0 => swap - limit,
            Some(_) => swap,
            None => swap - now.unwrap_or(0),
        };
        if swap >= 0 && only < 0 {
            return Err(Error::Invalid(
                "linux.resources.memory.swap: below memory.limit, which it includes".to_owned(),
            ));
        }
        let both = swap.max(-1);
        settings.push(
            field("memory.swap")
                .v1("memory.memsw.limit_in_bytes", both)
                .v2("memory.swap.max", max(only))
                // No swap accounting in this kernel.
                .optional(),
        );
    }
    settings
        .extend(limit.map(|limit| {
            field("memory.limit").v1("memory.limit_in_bytes", limit.max(-1)).v2("memory.max", max(limit))
        }));
    settings.extend(
        reservation
            .map(|r| field("memory.reservation").v1("memory.soft_limit_in_bytes", r.max(-1)).v2("memory.low", max(r))),
    );
    let tcp = said(memory.kernel_tcp());
    settings.extend(tcp.map(|tcp| field("memory.kernelTCP").v1("memory.kmem.tcp.limit_in_bytes", tcp).optional()));
    settings.extend(memory.swappiness().map(|n| field("memory.swappiness").v1("memory.swappiness", n)));
    let never = memory.disable_oom_killer().filter(|never| *never);
    settings.extend(never.map(|_| field("memory.disableOOMKiller").v1("memory.oom_control", 1)));
    Ok(settings)
}

/// A limit below what is used makes the kernel kill; who asks for a check first is refused instead.
pub(super) fn check(memory: &LinuxMemory, controller: Controller<'_, '_>) -> Result<()> {
    let Some((dir, v2)) = controller("memory").filter(|_| memory.check_before_update() == Some(true)) else {
        return Ok(());
    };
    let number = |file: &str| read(dir, file).ok().and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(0);
    let used = number(if v2 { "memory.current" } else { "memory.usage_in_bytes" });
    let both = if v2 { used + number("memory.swap.current") } else { number("memory.memsw.usage_in_bytes") };
    let limits = [("memory+swap", memory.swap(), both), ("memory", memory.limit(), used)];
    match limits.iter().find(|(_, limit, used)| limit.is_some_and(|limit| limit > 0 && limit < *used)) {
        Some((name, limit, used)) => {
            let limit = limit.unwrap_or_default();
            Err(Error::Invalid(format!("rejecting {name} limit {limit} <= usage {used}")))
        }
        None => Ok(()),
    }
}
