//! Instructions of classic BPF, and the conditions of a rule as instructions.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

use crate::sys::Instruction;

/// `BPF_LD | BPF_W | BPF_ABS` and so on (linux/bpf_common.h).
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NUMBER_AT: u32 = 0;
pub(super) const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

pub(super) fn load(at: u32) -> Instruction {
    Instruction { code: LOAD, when_true: 0, when_false: 0, k: at }
}

pub(super) fn jump(code: u16, k: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction { code, when_true, when_false, k }
}

/// Leaves out the next `count` instructions.
pub(super) fn skip(count: usize) -> Instruction {
    Instruction { code: JUMP, when_true: 0, when_false: 0, k: count as u32 }
}

pub(super) fn ret(action: u32) -> Instruction {
    Instruction { code: RETURN, when_true: 0, when_false: 0, k: action }
}

/// Answers `action` where all conditions hold, and goes on behind itself where one does not. `wide`: arguments have 64
/// bits; of the values for narrow ones the lower half counts.
pub(super) fn rule(conditions: &[LinuxSeccompArg], action: u32, wide: bool) -> Vec<Instruction> {
    let check = |condition| if wide { check_wide(condition) } else { check_narrow(condition) };
    let mut steps: Vec<Step> = conditions.iter().flat_map(check).collect();
    steps.push(Step::Code(ret(action)));
    link(&steps)
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

fn mask(bits: u32) -> Step {
    Step::Code(Instruction { code: AND, when_true: 0, when_false: 0, k: bits })
}

/// Where the lower and the higher half of an argument are.
fn places(argument: &LinuxSeccompArg) -> (u32, u32) {
    let at = ARGUMENTS_AT + 8 * argument.index() as u32;
    if cfg!(target_endian = "big") { (at + 4, at) } else { (at, at + 4) }
}

/// One condition on an argument of 32 bits.
fn check_narrow(argument: &LinuxSeccompArg) -> Vec<Step> {
    use LinuxSeccompOperator as Op;
    let (low, wanted) = (argument.value() as u32, argument.value_two().unwrap_or(0) as u32);
    let last = match argument.op() {
        Op::ScmpCmpEq => Step::Branch(JUMP_EQUAL, low, To::Pass, To::Fail),
        Op::ScmpCmpNe => Step::Branch(JUMP_EQUAL, low, To::Fail, To::Pass),
        Op::ScmpCmpGe => Step::Branch(JUMP_GREATER_EQUAL, low, To::Pass, To::Fail),
        Op::ScmpCmpGt => Step::Branch(JUMP_GREATER, low, To::Pass, To::Fail),
        Op::ScmpCmpLt => Step::Branch(JUMP_GREATER_EQUAL, low, To::Fail, To::Pass),
        Op::ScmpCmpLe => Step::Branch(JUMP_GREATER, low, To::Fail, To::Pass),
        Op::ScmpCmpMaskedEq => Step::Branch(JUMP_EQUAL, wanted, To::Pass, To::Fail),
    };
    let masked = (argument.op() == Op::ScmpCmpMaskedEq).then(|| mask(low));
    [Step::Code(load(places(argument).0))].into_iter().chain(masked).chain([last, Step::End]).collect()
}

/// One condition on an argument of 64 bits, by halves.
fn check_wide(argument: &LinuxSeccompArg) -> Vec<Step> {
    use LinuxSeccompOperator as Op;
    let (low_at, high_at) = places(argument);
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
                mask(high),
                Step::Branch(JUMP_EQUAL, wanted_high, To::Next, To::Fail),
                code(load(low_at)),
                mask(low),
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
