//! The compiler. A program first refuses other architectures, then answers ENOSYS to calls newer than its profile, and
//! then walks the calls in ascending order: neighbours with one answer are one range. Answers that depend on the number
//! alone stay cheap, since the kernel remembers them (Linux 5.11, SECCOMP_CACHE).

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use super::{Program, syscalls};
use crate::sys::Instruction;
use crate::{Error, Result};

#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURE: u32 = 0xc000_003e;

/// Numbers from here on are the x32 ABI's.
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
const WAIT_KILLABLE: u32 = 1 << 5;
/// BPF_MAXINSNS.
const MAX_INSTRUCTIONS: usize = 4096;

/// `BPF_LD | BPF_W | BPF_ABS` and so on (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// What is answered to one call.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    /// Tried in order: all of its conditions, then the action.
    conditional: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: Option<u32>,
}

/// Compiles the `linux.seccomp` section. Names that this architecture does not have are left out, as all runtimes do.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Program> {
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut answers: BTreeMap<u32, Answer> = BTreeMap::new();
    let mut newest = 0;
    for rule in seccomp.syscalls().as_deref().unwrap_or_default() {
        add_rule(rule, default, &mut answers, &mut newest)?;
    }
    let mut code = prologue();
    // A call that the profile's author could not know must look absent, not forbidden, or libc does not fall back.
    if default == ret_errno(EPERM) && newest > 0 {
        code.extend([jump(JUMP_GREATER, newest, 0, 1), ret(ret_errno(ENOSYS))]);
    }
    body(&answers, default, &mut code);
    code.push(ret(default));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(invalid(&format!("too large: {} instructions", code.len())));
    }
    let flags = flags(seccomp)? | if notifies(seccomp)? { crate::sys::SECCOMP_NEW_LISTENER } else { 0 };
    if flags & WAIT_KILLABLE != 0 && flags & crate::sys::SECCOMP_NEW_LISTENER == 0 {
        return Err(invalid("flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV goes with SCMP_ACT_NOTIFY only"));
    }
    Ok(Program { code, flags })
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

fn add_rule(rule: &LinuxSyscall, default: u32, answers: &mut BTreeMap<u32, Answer>, newest: &mut u32) -> Result<()> {
    let action = action(rule.action(), rule.errno_ret())?;
    let conditions = rule.args().as_deref().unwrap_or_default();
    if let Some(bad) = conditions.iter().find(|c| c.index() > 5) {
        return Err(invalid(&format!("syscalls: argument index {} is above 5", bad.index())));
    }
    for number in rule.names().iter().filter_map(|name| syscalls::number(name)) {
        *newest = (*newest).max(number);
        if action == default {
            continue;
        }
        let answer = answers.entry(number).or_default();
        if conditions.is_empty() {
            answer.otherwise = Some(action);
        } else if repeats_an_index(conditions) {
            // Two conditions on one argument are alternatives, as libseccomp's callers write them.
            answer.conditional.extend(conditions.iter().map(|condition| (vec![*condition], action)));
        } else {
            answer.conditional.push((conditions.to_vec(), action));
        }
    }
    Ok(())
}

fn repeats_an_index(conditions: &[LinuxSeccompArg]) -> bool {
    conditions.iter().enumerate().any(|(n, c)| conditions.iter().skip(n + 1).any(|other| other.index() == c.index()))
}

fn prologue() -> Vec<Instruction> {
    let mut code =
        vec![load(ARCHITECTURE_AT), jump(JUMP_EQUAL, ARCHITECTURE, 1, 0), ret(ret_errno(ENOSYS)), load(NUMBER_AT)];
    if cfg!(target_arch = "x86_64") {
        code.extend([jump(JUMP_GREATER_EQUAL, X32_BIT, 0, 1), ret(ret_errno(ENOSYS))]);
    }
    code
}

/// The calls in ascending order; the number is loaded.
fn body(answers: &BTreeMap<u32, Answer>, default: u32, code: &mut Vec<Instruction>) {
    let mut range: Option<(u32, u32, u32)> = None;
    for (number, answer) in answers {
        match (&mut range, answer.otherwise) {
            (Some((_, last, action)), Some(same))
                if answer.conditional.is_empty() && same == *action && *last + 1 == *number =>
            {
                *last = *number;
            }
            (_, Some(action)) if answer.conditional.is_empty() => {
                flush(range.replace((*number, *number, action)), default, code);
            }
            _ => {
                flush(range.take(), default, code);
                conditional(*number, answer, default, code);
            }
        }
    }
    flush(range, default, code);
}

fn flush(range: Option<(u32, u32, u32)>, default: u32, code: &mut Vec<Instruction>) {
    if let Some((first, last, action)) = range {
        code.extend([jump(JUMP_GREATER, last, 3, 0), jump(JUMP_GREATER_EQUAL, first, 0, 1), ret(action), ret(default)]);
    }
}

fn conditional(number: u32, answer: &Answer, default: u32, code: &mut Vec<Instruction>) {
    let mut body = Vec::new();
    for (conditions, action) in &answer.conditional {
        let mut rule: Vec<Step> = conditions.iter().flat_map(check).collect();
        rule.push(Step::Code(ret(*action)));
        body.extend(link(&rule));
    }
    body.push(ret(answer.otherwise.unwrap_or(default)));
    code.push(jump(JUMP_EQUAL, number, 1, 0));
    code.push(Instruction { code: JUMP, when_true: 0, when_false: 0, k: body.len() as u32 });
    code.extend(body);
}

/// An instruction of a rule; `Fail` ends are resolved to the rule's end, `Pass` to the condition's end.
#[derive(Clone, Copy)]
enum Step {
    Code(Instruction),
    /// A jump: (code, operand, when true, when false).
    Branch(u16, u32, To, To),
    /// The end of a condition.
    End,
}

#[derive(Clone, Copy, PartialEq)]
enum To {
    Next,
    Pass,
    Fail,
}

/// One condition on a 64-bit argument, by halves.
fn check(argument: &LinuxSeccompArg) -> Vec<Step> {
    use LinuxSeccompOperator as Op;
    let at = ARGUMENTS_AT + 8 * argument.index() as u32;
    let (low_at, high_at) = if cfg!(target_endian = "big") { (at + 4, at) } else { (at, at + 4) };
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    let (low, high) = halves(argument.value());
    let code = |i| Step::Code(i);
    let order = |last: u16, greater: To, last_true: To, last_false: To| {
        vec![
            code(load(high_at)),
            Step::Branch(JUMP_GREATER, high, greater, To::Next),
            Step::Branch(JUMP_EQUAL, high, To::Next, if greater == To::Pass { To::Fail } else { To::Pass }),
            code(load(low_at)),
            Step::Branch(last, low, last_true, last_false),
        ]
    };
    let mut steps = match argument.op() {
        Op::ScmpCmpEq => vec![
            code(load(high_at)),
            Step::Branch(JUMP_EQUAL, high, To::Next, To::Fail),
            code(load(low_at)),
            Step::Branch(JUMP_EQUAL, low, To::Pass, To::Fail),
        ],
        Op::ScmpCmpNe => vec![
            code(load(high_at)),
            Step::Branch(JUMP_EQUAL, high, To::Next, To::Pass),
            code(load(low_at)),
            Step::Branch(JUMP_EQUAL, low, To::Fail, To::Pass),
        ],
        Op::ScmpCmpGe => order(JUMP_GREATER_EQUAL, To::Pass, To::Pass, To::Fail),
        Op::ScmpCmpGt => order(JUMP_GREATER, To::Pass, To::Pass, To::Fail),
        Op::ScmpCmpLt => order(JUMP_GREATER_EQUAL, To::Fail, To::Fail, To::Pass),
        Op::ScmpCmpLe => order(JUMP_GREATER, To::Fail, To::Fail, To::Pass),
        Op::ScmpCmpMaskedEq => {
            let (wanted_low, wanted_high) = halves(argument.value_two().unwrap_or(0));
            vec![
                code(load(high_at)),
                code(Instruction { code: AND, when_true: 0, when_false: 0, k: high }),
                Step::Branch(JUMP_EQUAL, wanted_high, To::Next, To::Fail),
                code(load(low_at)),
                code(Instruction { code: AND, when_true: 0, when_false: 0, k: low }),
                Step::Branch(JUMP_EQUAL, wanted_low, To::Pass, To::Fail),
            ]
        }
    };
    steps.push(Step::End);
    steps
}

/// Resolves the jumps of one rule. Six conditions are at most 36 instructions: offsets fit into a byte.
fn link(steps: &[Step]) -> Vec<Instruction> {
    let place = |index: usize| steps.iter().take(index).filter(|s| !matches!(s, Step::End)).count();
    let total = place(steps.len());
    let mut code = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let here = place(index);
        let pass = steps.iter().skip(index).position(|s| matches!(s, Step::End)).map_or(total, |n| place(index + n));
        let offset = |to: To| match to {
            To::Next => 0,
            To::Pass => (pass - here - 1) as u8,
            To::Fail => (total - here - 1) as u8,
        };
        match step {
            Step::Code(instruction) => code.push(*instruction),
            Step::Branch(kind, k, yes, no) => code.push(jump(*kind, *k, offset(*yes), offset(*no))),
            Step::End => {}
        }
    }
    code
}

fn load(at: u32) -> Instruction {
    Instruction { code: LOAD, when_true: 0, when_false: 0, k: at }
}

fn jump(code: u16, k: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction { code, when_true, when_false, k }
}

fn ret(action: u32) -> Instruction {
    Instruction { code: RETURN, when_true: 0, when_false: 0, k: action }
}

fn ret_errno(errno: u32) -> u32 {
    0x0005_0000 | errno
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32> {
    if errno.is_some_and(|errno| errno > 4095) {
        return Err(invalid("errnoRet: above 4095"));
    }
    Ok(action.as_u32(errno))
}

fn invalid(what: &str) -> Error {
    Error::Invalid(format!("linux.seccomp: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &Program, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(ARCHITECTURE.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        arguments.iter().for_each(|a| data.extend(a.to_le_bytes()));
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let i = program.code[at];
            let branch = |taken: bool| usize::from(if taken { i.when_true } else { i.when_false });
            at += 1;
            match i.code {
                LOAD => accumulator = u32::from_le_bytes(data[i.k as usize..i.k as usize + 4].try_into().unwrap()),
                AND => accumulator &= i.k,
                JUMP => at += i.k as usize,
                JUMP_EQUAL => at += branch(accumulator == i.k),
                JUMP_GREATER => at += branch(accumulator > i.k),
                JUMP_GREATER_EQUAL => at += branch(accumulator >= i.k),
                RETURN => return i.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn compiled(json: &str) -> Program {
        compile(&serde_json::from_str(json).unwrap()).unwrap()
    }

    const ALLOW: u32 = 0x7fff_0000;

    #[test]
    fn comparisons_look_at_all_64_bits() {
        let big = 0x1_0000_0005u64;
        for (op, matching, others) in [
            ("EQ", vec![big], vec![5, big + 1, big - 1, 0x2_0000_0005]),
            ("NE", vec![5, big + 1, 0x2_0000_0005], vec![big]),
            ("LT", vec![0, 5, big - 1, 0xffff_ffff], vec![big, big + 1, u64::MAX]),
            ("LE", vec![0, big], vec![big + 1, 0x2_0000_0000]),
            ("GT", vec![big + 1, 0x2_0000_0000], vec![big, 0xffff_ffff]),
            ("GE", vec![big, 0x2_0000_0000], vec![big - 1, 0xffff_ffff]),
        ] {
            let program = compiled(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":2,"value":{big},"op":"SCMP_CMP_{op}"}}]}},{{"names":["write"],"action":"SCMP_ACT_ALLOW"}}]}}"#
            ));
            let read = syscalls::number("read").unwrap();
            let at = |value| run(&program, read, [0, 0, value, 0, 0, 0]);
            assert!(matching.iter().all(|v| at(*v) == ALLOW), "{op}");
            assert!(others.iter().all(|v| at(*v) == ret_errno(EPERM)), "{op}");
            assert_eq!(run(&program, syscalls::number("write").unwrap(), [0; 6]), ALLOW);
        }
    }

    #[test]
    fn several_rules_for_one_call_are_tried_in_order() {
        let program = compiled(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"syscalls":[
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":0,"value":240,"valueTwo":16,"op":"SCMP_CMP_MASKED_EQ"},{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_LOG","args":[
                {"index":3,"value":1,"op":"SCMP_CMP_EQ"},{"index":3,"value":2,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        );
        let clone = syscalls::number("clone").unwrap();
        assert_eq!(run(&program, clone, [0x11f & !0xe0, 7, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&program, clone, [0x20, 7, 0, 2, 0, 0]), 0x7ffc_0000);
        assert_eq!(run(&program, clone, [0x10, 8, 0, 0, 0, 0]), 0x8000_0000);
        assert_eq!(run(&program, clone + 1, [0; 6]), ret_errno(13));
    }

    #[test]
    fn the_default_profile_closes_what_it_should() {
        let none = oci_spec::runtime::Capabilities::new();
        let program = compile(&super::super::default_profile(&none).unwrap()).unwrap();
        let answer = |name: &str, first: u64| run(&program, syscalls::number(name).unwrap(), [first, 0, 0, 0, 0, 0]);
        for open in ["read", "execve", "openat", "clone", "socket", "ptrace", "futex", "statx", "personality"] {
            assert_eq!(answer(open, 0), ALLOW, "{open}");
        }
        let closed = [
            "mount",
            "fsopen",
            "open_tree",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "kexec_load",
            "umount2",
            "move_mount",
            "userfaultfd",
            "init_module",
            "pivot_root",
            "add_key",
            "perf_event_open",
        ];
        for closed in closed {
            assert_eq!(answer(closed, 0), ret_errno(EPERM), "{closed}");
        }
        assert_eq!(answer("clone", 0x1000_0000), ret_errno(EPERM));
        assert_eq!(answer("socket", 40), ret_errno(EPERM));
        assert_eq!(answer("clone3", 0), ret_errno(ENOSYS));
        assert_eq!(run(&program, 5000, [0; 6]), ret_errno(ENOSYS));
        let admin = [oci_spec::runtime::Capability::SysAdmin].into();
        let program = compile(&super::super::default_profile(&admin).unwrap()).unwrap();
        assert_eq!(run(&program, syscalls::number("mount").unwrap(), [0; 6]), ALLOW);
    }
}
