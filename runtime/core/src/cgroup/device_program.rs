//! Device rules: text for v1, an eBPF program for v2 (type CGROUP_DEVICE: 1 allows, 0 denies).

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

use super::limits::{Controller, missing, write_setting};
use crate::{Error, Result};

/// What every container may use, after the rules of its spec (config-linux.md, Default Devices): (type, major, minor,
/// access), `None` for any.
const DEFAULTS: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 10] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
];

/// Gives a cgroup rules, and those that every container has behind them.
pub(super) fn apply(rules: &[LinuxDeviceCgroup], controller: Controller<'_, '_>) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let (dir, v2) = controller("devices").ok_or_else(|| missing("devices", "devices"))?;
    let rules = with_defaults(rules);
    if v2 {
        return crate::sys::set_device_program(dir, &compile(&rules)?)
            .map_err(|e| Error::System("linux.resources.devices: set the program".to_owned(), e));
    }
    for rule in &rules {
        access_bits(rule.access().as_deref().unwrap_or_default())?;
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        v1_texts(rule).iter().try_for_each(|text| write_setting(dir, "devices", file, text))?;
    }
    Ok(())
}

/// The rules of a specification, and those that every container has behind them.
pub(super) fn with_defaults(rules: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    rules.iter().cloned().chain(defaults()).collect()
}

/// The default rules.
fn defaults() -> impl Iterator<Item = LinuxDeviceCgroup> {
    DEFAULTS.iter().filter_map(|(kind, major, minor, access)| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(*kind).access(*access);
        if let Some(major) = major {
            rule = rule.major(*major);
        }
        if let Some(minor) = minor {
            rule = rule.minor(*minor);
        }
        rule.build().ok()
    })
}

/// `c 1:3 rwm`. To v1 `a` is every device and every access, whatever is said of them: less than that is two rules. Where
/// some access to all is denied v1 lets nobody have an exception, which the default devices need: then all of it is.
fn v1_texts(rule: &LinuxDeviceCgroup) -> Vec<String> {
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".to_owned(), |n| n.to_string());
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
    let every = major == "*" && minor == "*" && (!rule.allow() || "rwm".chars().all(|c| access.contains(c)));
    let kinds = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A if every => return vec!["a".to_owned()],
        LinuxDeviceType::A => vec![LinuxDeviceType::C, LinuxDeviceType::B],
        kind => vec![kind],
    };
    kinds.iter().map(|kind| format!("{} {major}:{minor} {access}", kind.as_str())).collect()
}

/// Registers: r0 result, r1 context, r2 type, r3 access, r4 major, r5 minor.
const fn instruction(op: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    (op as u64)
        | ((destination as u64) << 8)
        | ((source as u64) << 12)
        | ((offset as u16 as u64) << 16)
        | ((immediate as u32 as u64) << 32)
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Compiles rules: of each access that is asked for the last rule that matches decides, so they are tried backwards;
/// without a match, deny. Register 3 holds what nobody has allowed so far. The kernel refuses what can not be reached, so
/// nothing is behind a rule that matches all.
pub(super) fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<u64>> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let compiled = compile_rule(rule)?;
        let matches_all = compiled.len() == VERDICT;
        code.extend(compiled);
        if matches_all {
            return Ok(code);
        }
    }
    code.extend(verdict(false));
    Ok(code)
}

/// The length of a verdict.
const VERDICT: usize = 2;

fn verdict(allow: bool) -> [u64; VERDICT] {
    [instruction(MOVE, 0, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

fn compile_rule(rule: &LinuxDeviceCgroup) -> Result<Vec<u64>> {
    // (register, what must be in it)
    let mut tests = Vec::new();
    match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => {}
        LinuxDeviceType::B => tests.push((2, 1)),
        LinuxDeviceType::C | LinuxDeviceType::U => tests.push((2, 2)),
        LinuxDeviceType::P => return Err(Error::Invalid("linux.resources.devices: type p has no rules".to_owned())),
    }
    for (register, number) in [(4, rule.major()), (5, rule.minor())] {
        if let Some(number) = number.filter(|n| *n >= 0) {
            let number = i32::try_from(number)
                .map_err(|_| Error::Invalid("linux.resources.devices: number out of range".to_owned()))?;
            tests.push((register, number));
        }
    }
    let over = VERDICT as i16;
    let mut decision = match (rule.allow(), access_bits(rule.access().as_deref().unwrap_or_default())?) {
        (_, ALL) => Vec::new(),
        (true, bits) => vec![instruction(AND, 3, 0, 0, ALL & !bits), instruction(JUMP_NOT_EQUAL, 3, 0, over, 0)],
        (false, bits) => vec![
            instruction(MOVE_REGISTER, 1, 3, 0, 0),
            instruction(AND, 1, 0, 0, bits),
            instruction(JUMP_EQUAL, 1, 0, over, 0),
        ],
    };
    decision.extend(verdict(rule.allow()));
    let mut left = tests.len() + decision.len();
    let mut code = Vec::new();
    for (register, number) in tests {
        left -= 1;
        code.push(instruction(JUMP_NOT_EQUAL, register, 0, i16::try_from(left).unwrap_or(i16::MAX), number));
    }
    code.extend(decision);
    Ok(code)
}

/// All access.
const ALL: i32 = 7;

/// mknod 1, read 2, write 4 (BPF_DEVCG_ACC_*).
fn access_bits(access: &str) -> Result<i32> {
    if access.is_empty() {
        return Ok(ALL);
    }
    access.chars().try_fold(0, |bits, c| match c {
        'm' => Ok(bits | 1),
        'r' => Ok(bits | 2),
        'w' => Ok(bits | 4),
        other => Err(Error::Invalid(format!("linux.resources.devices: access {other:?} is unknown"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program of the instructions used here.
    fn run(code: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let context = [kind | access << 16, major, minor];
        let (mut r, mut at) = ([0u32; 10], 0usize);
        loop {
            let i = code[at];
            let (d, s) = (((i >> 8) & 15) as usize, ((i >> 12) & 15) as usize);
            let (offset, imm) = ((i >> 16) as u16 as i16, (i >> 32) as u32);
            at += 1;
            match i as u8 {
                LOAD_WORD => r[d] = context[offset as usize / 4],
                AND => r[d] &= imm,
                SHIFT_RIGHT => r[d] >>= imm,
                MOVE => r[d] = imm,
                MOVE_REGISTER => r[d] = r[s],
                JUMP_NOT_EQUAL if r[d] != imm => at += offset as usize,
                JUMP_EQUAL if r[d] == imm => at += offset as usize,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return r[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rule = |allow, typ, major, minor, access: &str| {
            let json =
                serde_json::json!({"allow": allow, "type": typ, "major": major, "minor": minor, "access": access});
            serde_json::from_value::<LinuxDeviceCgroup>(json).unwrap()
        };
        let rules = [
            serde_json::from_str(r#"{"allow":false,"access":"rwm"}"#).unwrap(),
            rule(true, "c", 1, 3, "rwm"),
            rule(true, "b", 8, 0, "r"),
            rule(false, "c", 1, 3, "w"),
            rule(true, "c", 1, 9, "r"),
            rule(true, "c", 1, 9, "w"),
        ];
        let code = compile(&rules).unwrap();
        for (kind, access, major, minor, want) in [
            (2, 2, 1, 3, 1),
            (2, 4, 1, 3, 0),
            // Whoever asks for both gets none, if one is denied, and both, if each is allowed by somebody.
            (2, 6, 1, 3, 0),
            (2, 3, 1, 3, 1),
            (2, 6, 1, 9, 1),
            (2, 7, 1, 9, 0),
            (2, 2, 1, 5, 0),
            (1, 2, 8, 0, 1),
            (1, 4, 8, 0, 0),
            (1, 6, 8, 0, 0),
            (2, 2, 8, 0, 0),
        ] {
            assert_eq!(run(&code, kind, access, major, minor), want, "{kind} {access} {major}:{minor}");
        }
        // Where nothing before can decide, nothing is there.
        let rules_and_all = [&rules[..], &rules[..1]].concat();
        assert_eq!(compile(&rules_and_all).unwrap().len(), 6 + 2);
        assert_eq!(v1_texts(&rules[1]), ["c 1:3 rwm"]);
        assert_eq!(v1_texts(&rules[0]), ["a"]);
        let some = |json: &str| v1_texts(&serde_json::from_str(json).unwrap());
        assert_eq!(some(r#"{"allow":true,"access":"r"}"#), ["c *:* r", "b *:* r"]);
        assert_eq!(some(r#"{"allow":false,"type":"a","major":8}"#), ["c 8:* rwm", "b 8:* rwm"]);
        assert_eq!(some(r#"{"allow":false,"access":"w"}"#), ["a"]);
    }
}
