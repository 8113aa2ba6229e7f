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
    rules.iter().try_for_each(|rule| {
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        write_setting(dir, "devices", file, &v1_text(rule))
    })
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

/// `c 1:3 rwm`.
fn v1_text(rule: &LinuxDeviceCgroup) -> String {
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".to_owned(), |n| n.to_string());
    let kind = rule.typ().unwrap_or(LinuxDeviceType::A);
    if kind == LinuxDeviceType::A {
        return "a".to_owned();
    }
    let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
    format!("{} {}:{} {access}", kind.as_str(), number(rule.major()), number(rule.minor()))
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
const JUMP_NOT_EQUAL: u8 = 0x56;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e;
const EXIT: u8 = 0x95;

/// Compiles rules: the last one that matches decides, so they are tried backwards; without a match, deny. The kernel
/// refuses what can not be reached, so nothing is behind a rule that matches all.
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
    /// (register, must equal); -1 marks the access check.
    enum Test {
        Equal(u8, i32),
        Access(i32),
    }
    let mut tests = Vec::new();
    match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::A => {}
        LinuxDeviceType::B => tests.push(Test::Equal(2, 1)),
        LinuxDeviceType::C | LinuxDeviceType::U => tests.push(Test::Equal(2, 2)),
        LinuxDeviceType::P => return Err(Error::Invalid("linux.resources.devices: type p has no rules".to_owned())),
    }
    let access = access_bits(rule.access().as_deref().unwrap_or_default())?;
    if access != 7 {
        tests.push(Test::Access(access));
    }
    for (register, number) in [(4, rule.major()), (5, rule.minor())] {
        if let Some(number) = number.filter(|n| *n >= 0) {
            let number = i32::try_from(number)
                .map_err(|_| Error::Invalid("linux.resources.devices: number out of range".to_owned()))?;
            tests.push(Test::Equal(register, number));
        }
    }
    let length = |test: &Test| match test {
        Test::Equal(..) => 1,
        Test::Access(_) => 3,
    };
    let mut left: i16 = tests.iter().map(length).sum::<i16>() + 2;
    let mut code = Vec::new();
    for test in &tests {
        left -= length(test);
        match test {
            Test::Equal(register, number) => code.push(instruction(JUMP_NOT_EQUAL, *register, 0, left, *number)),
            // All that is asked for must be in the rule.
            Test::Access(bits) => code.extend([
                instruction(MOVE_REGISTER, 1, 3, 0, 0),
                instruction(AND, 1, 0, 0, *bits),
                instruction(JUMP_NOT_EQUAL_REGISTER, 1, 3, left, 0),
            ]),
        }
    }
    code.extend(verdict(rule.allow()));
    Ok(code)
}

/// mknod 1, read 2, write 4 (BPF_DEVCG_ACC_*).
fn access_bits(access: &str) -> Result<i32> {
    if access.is_empty() {
        return Ok(7);
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
                JUMP_NOT_EQUAL_REGISTER if r[d] != r[s] => at += offset as usize,
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER => {}
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
        ];
        let code = compile(&rules).unwrap();
        for (kind, access, major, minor, want) in [
            (2, 2, 1, 3, 1),
            (2, 4, 1, 3, 0),
            (2, 6, 1, 3, 1),
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
        assert_eq!(v1_text(&rules[1]), "c 1:3 rwm");
        assert_eq!(v1_text(&rules[0]), "a");
    }
}
