//! The compiler. A program looks for the architecture that a call is of, answers ENOSYS to calls newer than its profile,
//! and then walks the calls in ascending order: neighbours with one answer are one range. Answers that depend on the
//! number alone stay cheap, since the kernel remembers them (Linux 5.11, SECCOMP_CACHE). Neither fewer comparisons (a search
//! by halves) nor fewer instructions make a filter faster to install; each architecture more makes it 0.05 ms slower.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::Program;
use super::architecture::{self, Architecture, X32_BIT};
use super::instruction::{
    ARCHITECTURE_AT, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, NUMBER_AT, jump, load, ret, rule, skip,
};
use super::syscalls::Numbers;
use crate::sys::Instruction;
use crate::{Error, Result};

/// SCMP_ACT_KILL: what libseccomp, and so every runtime that uses it, answers to an architecture that is not listed.
pub(super) const FOREIGN: u32 = 0;
pub(super) const ENOSYS: u32 = 38;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
const WAIT_KILLABLE: u32 = 1 << 5;
/// BPF_MAXINSNS.
const MAX_INSTRUCTIONS: usize = 4096;
/// So many that jumps over them fit into a byte.
const RANGES_IN_A_ROW: usize = 100;
/// What a tracer makes of the number of a call that is not to be done (ptrace(2)).
const NO_CALL: u32 = u32::MAX;

/// What is answered to one call.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    /// Tried in order: all of its conditions, then the action.
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: Option<u32>,
}

type Answers = BTreeMap<u32, Answer>;

/// Compiles the `linux.seccomp` section, for this machine's own architecture and those listed. Names that an architecture
/// does not have are left out, and so are architectures whose calls do not come here, as all runtimes do.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Program> {
    compile_for(architecture::ALL, seccomp)
}

/// The same for a machine of any kind.
fn compile_for(all: &[Architecture], seccomp: &LinuxSeccomp) -> Result<Program> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let rules = seccomp.syscalls().as_deref().unwrap_or_default();
    check(rules)?;
    let listed = seccomp.architectures().as_deref().unwrap_or_default();
    let is_listed = |at: usize, one: &Architecture| at == 0 || listed.contains(&one.oci);
    let all = all.iter().enumerate().filter(|(at, one)| is_listed(*at, one));
    let mut sections: Vec<Section<'_>> = all.map(|(_, one)| Section::new(one)).collect();
    for rule in rules {
        let action = action(rule.action(), rule.errno_ret())?;
        let conditions = rule.args().as_deref().unwrap_or_default();
        for name in rule.names() {
            let Some(call) = Numbers::of(name) else { continue };
            sections.iter_mut().try_for_each(|section| section.add(name, call, conditions, action, default))?;
        }
    }
    let mut code: Vec<Instruction> =
        sections.iter().flat_map(|section| guarded(section.architecture, section.code(default))).collect();
    code.push(ret(FOREIGN));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(invalid(&format!("too large: {} instructions", code.len())));
    }
    let flags = flags(seccomp)? | if notifies(seccomp)? { crate::sys::SECCOMP_NEW_LISTENER } else { 0 };
    if flags & WAIT_KILLABLE != 0 && flags & crate::sys::SECCOMP_NEW_LISTENER == 0 {
        return Err(invalid("flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV goes with SCMP_ACT_NOTIFY only"));
    }
    Ok(Program { code, flags })
}

fn check(rules: &[LinuxSyscall]) -> Result<()> {
    let mut conditions = rules.iter().flat_map(|rule| rule.args().iter().flatten());
    match conditions.find(|condition| condition.index() > 5) {
        Some(bad) => Err(invalid(&format!("syscalls: argument index {} is above 5", bad.index()))),
        None => Ok(()),
    }
}

/// Whether some call is answered by a listener. Handing that over takes one call itself, so it cannot be all.
fn notifies(seccomp: &LinuxSeccomp) -> Result<bool> {
    let notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notify(seccomp.default_action()) {
        return Err(invalid("SCMP_ACT_NOTIFY cannot be the default action"));
    }
    let mut rules = seccomp.syscalls().iter().flatten().filter(|rule| notify(rule.action())).peekable();
    let any = rules.peek().is_some();
    if rules.any(|rule| rule.names().iter().any(|name| name == "write")) {
        return Err(invalid("SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    let path = seccomp.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
    match (any, path) {
        (true, false) => Err(invalid("SCMP_ACT_NOTIFY needs listenerPath")),
        (false, false) if seccomp.listener_metadata().as_ref().is_some_and(|m| !m.is_empty()) => {
            Err(invalid("listenerMetadata needs listenerPath"))
        }
        (any, _) => Ok(any),
    }
}

fn flags(seccomp: &LinuxSeccomp) -> Result<u32> {
    // As runc has it: who says nothing does not want his program slowed down.
    let said = seccomp.flags().as_deref();
    said.unwrap_or(&[LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow]).iter().try_fold(0, |flags, flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(flags | 2),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(flags | 4),
        // One thread has nothing to synchronise with.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(flags),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Ok(flags | WAIT_KILLABLE),
    })
}

/// What is answered to the calls of one architecture.
struct Section<'a> {
    architecture: &'a Architecture,
    answers: Answers,
    newest: u32,
}

impl<'a> Section<'a> {
    fn new(architecture: &'a Architecture) -> Self {
        Self { architecture, answers: Answers::new(), newest: 0 }
    }

    /// Adds a rule for a call.
    fn add(
        &mut self,
        name: &str,
        call: Numbers,
        conditions: &[LinuxSeccompArg],
        action: u32,
        default: u32,
    ) -> Result<()> {
        let number = self.architecture.number(call);
        let ordered = number.filter(|number| *number < self.architecture.unordered);
        self.newest = self.newest.max(ordered.unwrap_or(0));
        if action == default {
            return Ok(());
        }
        if let Some(number) = number {
            self.answers.entry(number).or_default().add(conditions, action);
        }
        self.add_multiplexed(name, conditions, action, default)
    }

    /// The instructions; the number is loaded, and they end in an answer.
    fn code(&self, default: u32) -> Vec<Instruction> {
        let mut code = Vec::new();
        if self.newest > 0 && refuses(default) {
            let check = [jump(JUMP_GREATER, self.newest, 0, 1), ret(ret_errno(ENOSYS))];
            code.push(jump(JUMP_GREATER_EQUAL, self.architecture.unordered, 2, 0));
            code.extend(check);
        }
        code.extend(body(&self.answers, default, self.architecture.wide));
        code
    }

    /// A rule for a call also holds where that call comes through a multiplexer. Its arguments are then in memory, where a
    /// filter cannot look: a rule with conditions holds whatever they are, if it is stricter than the profile is by default,
    /// and else not at all.
    fn add_multiplexed(&mut self, name: &str, conditions: &[LinuxSeccompArg], action: u32, default: u32) -> Result<()> {
        if !conditions.is_empty() && !is_stricter(action, default) {
            return Ok(());
        }
        for (multiplexer, bits, calls) in self.architecture.multiplexers {
            let Some((_, choice)) = calls.iter().find(|(call, _)| *call == name) else { continue };
            let Some(number) = Numbers::of(multiplexer).and_then(|call| self.architecture.number(call)) else {
                continue;
            };
            let chosen = LinuxSeccompArgBuilder::default().index(0usize).value(*bits).value_two(*choice);
            let chosen =
                chosen.op(LinuxSeccompOperator::ScmpCmpMaskedEq).build().map_err(|e| invalid(&e.to_string()))?;
            self.answers.entry(number).or_default().conditional.push((vec![chosen], action));
        }
        Ok(())
    }
}

/// Lets a section see the calls of its architecture only; others go on behind it.
fn guarded(architecture: &Architecture, section: Vec<Instruction>) -> Vec<Instruction> {
    let mut code = vec![load(NUMBER_AT)];
    match architecture.above {
        Some(true) => code.extend([jump(JUMP_GREATER_EQUAL, X32_BIT, 1, 0), skip(section.len())]),
        Some(false) => {
            let is_none = jump(JUMP_EQUAL, NO_CALL, 1, 0);
            code.extend([jump(JUMP_GREATER_EQUAL, X32_BIT, 0, 2), is_none, skip(section.len())]);
        }
        None => {}
    }
    code.extend(section);
    let head = [load(ARCHITECTURE_AT), jump(JUMP_EQUAL, architecture.audit, 1, 0), skip(code.len())];
    head.into_iter().chain(code).collect()
}

/// Whether calls that the profile does not name are kept from programs. Those that its author could not know must then
/// look absent, not forbidden, or libc does not fall back (as runc has it).
fn refuses(default: u32) -> bool {
    let permissive = LinuxSeccompAction::ScmpActTrace.as_u32(Some(0));
    is_stricter(default, permissive) && default != ret_errno(ENOSYS)
}

impl Answer {
    fn add(&mut self, conditions: &[LinuxSeccompArg], action: u32) {
        if conditions.is_empty() {
            self.otherwise = Some(action);
        } else if repeats_an_index(conditions) {
            // Two conditions on one argument are alternatives, as libseccomp's callers write them.
            self.conditional.extend(conditions.iter().map(|condition| (vec![*condition], action)));
        } else {
            self.conditional.push((conditions.to_vec(), action));
        }
    }

    /// Without conditions at the end that change nothing.
    fn concise(&self, default: u32) -> (&[(Vec<LinuxSeccompArg>, u32)], u32) {
        let last = self.otherwise.unwrap_or(default);
        let kept = self.conditional.iter().rposition(|(_, action)| *action != last).map_or(0, |at| at + 1);
        (self.conditional.get(..kept).unwrap_or_default(), last)
    }
}

fn repeats_an_index(conditions: &[LinuxSeccompArg]) -> bool {
    conditions.iter().enumerate().any(|(n, c)| conditions.iter().skip(n + 1).any(|other| other.index() == c.index()))
}

/// Of two answers the kernel takes the one that is less, read with a sign (seccomp(2), Filter return values).
fn is_stricter(one: u32, other: u32) -> bool {
    one.cast_signed() < other.cast_signed()
}

/// The calls in ascending order; the number is loaded. Ends in an answer.
fn body(answers: &Answers, default: u32, wide: bool) -> Vec<Instruction> {
    let mut code = Vec::new();
    let mut row: Vec<(u32, u32)> = Vec::new();
    let mut of_row = default;
    for (number, answer) in answers {
        match answer.concise(default) {
            ([], action) if action == of_row && row.len() < RANGES_IN_A_ROW => match row.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => row.push((*number, *number)),
            },
            ([], action) => {
                code.extend(one_row(&std::mem::take(&mut row), of_row, default));
                of_row = action;
                row.push((*number, *number));
            }
            (conditional, otherwise) => {
                code.extend(one_row(&std::mem::take(&mut row), of_row, default));
                code.extend(one_call(*number, conditional, otherwise, wide));
            }
        }
    }
    code.extend(one_row(&row, of_row, default));
    code.push(ret(default));
    code
}

/// Ranges of calls with one answer, and gaps between them with the default one: two comparisons each, and both answers
/// behind them, which higher calls leave out.
fn one_row(ranges: &[(u32, u32)], action: u32, default: u32) -> Vec<Instruction> {
    if ranges.is_empty() || action == default {
        return Vec::new();
    }
    let left = |at: usize| 2 * (ranges.len() - at) as u8;
    let mut code = Vec::new();
    for (at, (first, last)) in ranges.iter().enumerate() {
        let higher = if at + 1 == ranges.len() { 2 } else { 0 };
        code.push(jump(JUMP_GREATER_EQUAL, *first, 0, left(at)));
        code.push(jump(JUMP_GREATER, *last, higher, left(at) - 2));
    }
    code.extend([ret(action), ret(default)]);
    code
}

fn one_call(number: u32, conditional: &[(Vec<LinuxSeccompArg>, u32)], otherwise: u32, wide: bool) -> Vec<Instruction> {
    let mut body: Vec<Instruction> =
        conditional.iter().flat_map(|(conditions, action)| rule(conditions, *action, wide)).collect();
    body.push(ret(otherwise));
    [jump(JUMP_EQUAL, number, 1, 0), skip(body.len())].into_iter().chain(body).collect()
}

pub(super) fn ret_errno(errno: u32) -> u32 {
    0x0005_0000 | errno
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    if errno.is_some_and(|errno| errno > 4095) {
        return Err(invalid("errnoRet: above 4095"));
    }
    if errno.is_some() && !matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace) {
        return Err(invalid(&format!("errnoRet: {action} has none")));
    }
    Ok(action.as_u32(errno))
}

fn invalid(what: &str) -> Error {
    Error::Invalid(format!("linux.seccomp: {what}"))
}

#[cfg(test)]
mod tests;
