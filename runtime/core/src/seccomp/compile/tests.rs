//! Programs as the kernel would run them.

use serde_json::{Value, json};

use super::*;
use crate::seccomp::instruction::{AND, JUMP, LOAD, RETURN};
use crate::seccomp::{default_profile, syscalls};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 1;

/// Runs a program on a call of the architecture with this AUDIT_ARCH_*.
fn run(program: &Program, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(audit.to_le_bytes());
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

/// The machines that there can be, by the architectures they know.
const MACHINES: [&[Architecture]; 2] = [&architecture::OF_X86_64, &architecture::OF_AARCH64];

/// A profile's program on each machine, with each architecture that the machine has.
fn compiled(profile: &Value) -> Vec<(&'static Architecture, Program)> {
    let profile = serde_json::from_value(profile.clone()).unwrap();
    let program = |all: &'static [Architecture]| {
        let program = compile_for(all, &profile).unwrap();
        all.iter().map(move |one| (one, program.clone()))
    };
    MACHINES.into_iter().flat_map(program).collect()
}

/// A profile for all architectures that there are.
fn profile(default: &str, rules: Value) -> Value {
    let names: Vec<&str> = MACHINES.into_iter().flatten().map(|one| one.name).collect();
    json!({"defaultAction": default, "architectures": names, "syscalls": rules})
}

impl Architecture {
    fn named(&self, name: &str) -> u32 {
        Numbers::of(name).and_then(|call| self.number(call)).unwrap()
    }

    /// What is answered to a call by name.
    fn answer(&self, program: &Program, name: &str, arguments: [u64; 6]) -> u32 {
        run(program, self.audit, self.named(name), arguments)
    }
}

#[test]
fn every_action_is_answered_on_every_architecture() {
    let actions = [
        ("KILL", 0),
        ("KILL_THREAD", 0),
        ("KILL_PROCESS", 0x8000_0000),
        ("TRAP", 0x3_0000),
        ("ERRNO", 0x5_0001),
        ("NOTIFY", 0x7fc0_0000),
        ("TRACE", 0x7ff0_0001),
        ("LOG", 0x7ffc_0000),
        ("ALLOW", ALLOW),
    ];
    for (name, wanted) in actions {
        let action = format!("SCMP_ACT_{name}");
        let (default, other) = if name == "ALLOW" { ("SCMP_ACT_LOG", 0x7ffc_0000) } else { ("SCMP_ACT_ALLOW", ALLOW) };
        let mut rules = profile(default, json!([{"names": ["getpid", "prctl"], "action": action}]));
        rules["listenerPath"] = json!("/agent");
        for (one, program) in compiled(&rules) {
            assert_eq!(one.answer(&program, "getpid", [0; 6]), wanted, "{name} {one:?}");
            assert_eq!(one.answer(&program, "prctl", [0; 6]), wanted, "{name} {one:?}");
            assert_eq!(one.answer(&program, "getppid", [0; 6]), other, "{name} {one:?}");
        }
        if name == "NOTIFY" {
            // Somebody would have to answer what hands him over.
            assert!(compile(&serde_json::from_value(profile(&action, json!([]))).unwrap()).is_err());
            continue;
        }
        for (one, program) in compiled(&profile(&action, json!([{"names": ["write", "statx"], "action": default}]))) {
            assert_eq!(one.answer(&program, "getpid", [0; 6]), wanted, "{name} {one:?}");
            assert_eq!(one.answer(&program, "write", [0; 6]), other, "{name} {one:?}");
        }
    }
    let errno = json!([{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4095},
        {"names": ["getppid"], "action": "SCMP_ACT_TRACE", "errnoRet": 7}]);
    for (one, program) in compiled(&profile("SCMP_ACT_ALLOW", errno)) {
        assert_eq!(one.answer(&program, "getpid", [0; 6]), 0x5_0fff);
        assert_eq!(one.answer(&program, "getppid", [0; 6]), 0x7ff0_0007);
    }
    let above = profile("SCMP_ACT_ALLOW", json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}]));
    assert!(compile(&serde_json::from_value(above).unwrap()).unwrap_err().to_string().contains("errnoRet"));
}

/// Operator, values that match 0x1_0000_0005 of 64 bits, values that do not.
#[test]
fn comparisons_look_at_all_bits_that_there_are() {
    let big = 0x1_0000_0005u64;
    let cases: [(&str, Vec<u64>, Vec<u64>); 7] = [
        ("EQ", vec![big], vec![5, big + 1, big - 1, 0x2_0000_0005]),
        ("NE", vec![5, big + 1, 0x2_0000_0005], vec![big]),
        ("LT", vec![0, 5, big - 1, 0xffff_ffff], vec![big, big + 1, u64::MAX]),
        ("LE", vec![0, big], vec![big + 1, 0x2_0000_0000]),
        ("GT", vec![big + 1, 0x2_0000_0000], vec![big, 0xffff_ffff]),
        ("GE", vec![big, 0x2_0000_0000], vec![big - 1, 0xffff_ffff]),
        ("MASKED_EQ", vec![0x1_0000_0004, 0xf_0000_000e, u64::MAX - 1], vec![big, 4, 0x1_0000_0000, 0x1_0000_0001]),
    ];
    for (op, matching, others) in cases {
        for index in 0..6 {
            let condition =
                json!({"index": index, "value": big, "valueTwo": 0x1_0000_0004u64, "op": format!("SCMP_CMP_{op}")});
            let rules = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [condition]},
                    {"names": ["write"], "action": "SCMP_ACT_ALLOW"}]);
            for (one, program) in compiled(&profile("SCMP_ACT_ERRNO", rules)) {
                // The kernel widens narrow arguments with zeros.
                let seen = |value: u64| if one.wide { value } else { value & 0xffff_ffff };
                let at = |value| {
                    let mut arguments = [0; 6];
                    arguments[index] = seen(value);
                    one.answer(&program, "read", arguments)
                };
                let low = |value: u64| value & 0xffff_ffff;
                let holds = |value: u64| match op {
                    "EQ" => low(value) == low(big),
                    "NE" => low(value) != low(big),
                    "LT" => low(value) < low(big),
                    "LE" => low(value) <= low(big),
                    "GT" => low(value) > low(big),
                    "GE" => low(value) >= low(big),
                    _ => low(value) & low(big) == 4,
                };
                for value in matching.iter().chain(&others) {
                    let wanted = if one.wide { matching.contains(value) } else { holds(*value) };
                    let answer = if wanted { ALLOW } else { ret_errno(EPERM) };
                    assert_eq!(at(*value), answer, "{op} {value:#x} as argument {index} on {one:?}");
                }
                assert_eq!(one.answer(&program, "write", [0; 6]), ALLOW);
            }
        }
    }
}

#[test]
fn several_rules_for_one_call_are_tried_in_order() {
    let rules = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 240, "valueTwo": 16, "op": "SCMP_CMP_MASKED_EQ"},
            {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]},
        {"names": ["clone"], "action": "SCMP_ACT_LOG", "args": [
            {"index": 3, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 3, "value": 2, "op": "SCMP_CMP_EQ"}]},
        {"names": ["clone"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    let own = &architecture::ALL[0];
    let program = compile(&serde_json::from_value(rules).unwrap()).unwrap();
    let clone = |arguments| own.answer(&program, "clone", arguments);
    assert_eq!(clone([0x11f & !0xe0, 7, 0, 0, 0, 0]), ALLOW);
    assert_eq!(clone([0x20, 7, 0, 2, 0, 0]), 0x7ffc_0000);
    assert_eq!(clone([0x10, 8, 0, 0, 0, 0]), 0x8000_0000);
    assert_eq!(run(&program, own.audit, own.named("clone") - 1, [0; 6]), ret_errno(13));
}

#[test]
fn calls_of_other_architectures_end_the_caller() {
    for all in MACHINES {
        let own = &all[0];
        let program = |listed: Value| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": listed});
            compile_for(all, &serde_json::from_value(profile).unwrap()).unwrap()
        };
        for one in &all[1..] {
            assert_eq!(one.answer(&program(json!([])), "getpid", [0; 6]), FOREIGN, "{one:?}");
            assert_eq!(one.answer(&program(json!([one.name, "SCMP_ARCH_MIPS"])), "getpid", [0; 6]), ALLOW, "{one:?}");
        }
        // The machine's own need not be listed; one that there is not can be.
        for listed in [json!([]), json!(["SCMP_ARCH_S390X"]), json!(["SCMP_ARCH_NATIVE"])] {
            let program = program(listed);
            assert_eq!(own.answer(&program, "getpid", [0; 6]), ALLOW);
            assert_eq!(run(&program, 0x8000_0016, 20, [0; 6]), FOREIGN);
        }
        // What a tracer took is not a call of any.
        assert_eq!(run(&program(json!([])), own.audit, NO_CALL, [0; 6]), ALLOW);
        assert_eq!(run(&program(json!(["SCMP_ARCH_X32"])), own.audit, NO_CALL, [0; 6]), ALLOW);
    }
}

#[test]
fn calls_newer_than_the_profile_look_absent() {
    for (default, absent) in [
        (json!({"defaultAction": "SCMP_ACT_ERRNO"}), true),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13}), true),
        (json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}), true),
        (json!({"defaultAction": "SCMP_ACT_TRAP"}), true),
        (json!({"defaultAction": "SCMP_ACT_TRACE"}), false),
        (json!({"defaultAction": "SCMP_ACT_LOG"}), false),
    ] {
        let mut document = default.clone();
        document["architectures"] = profile("", json!([]))["architectures"].clone();
        document["syscalls"] = json!([{"names": ["read", "faccessat2", "nosuchcall"], "action": "SCMP_ACT_ALLOW"}]);
        for (one, program) in compiled(&document) {
            let known = one.named("faccessat2");
            let default = run(&program, one.audit, known - 1, [0; 6]);
            let newer = run(&program, one.audit, known + 1, [0; 6]);
            assert_eq!(run(&program, one.audit, known, [0; 6]), ALLOW);
            assert_ne!(default, ret_errno(ENOSYS));
            assert_eq!(newer, if absent { ret_errno(ENOSYS) } else { default }, "{one:?}");
            let private = run(&program, one.audit, one.unordered.min(known | 0xf_0000), [0; 6]);
            let ordered = one.unordered == u32::MAX;
            assert_eq!(private, if absent && ordered { ret_errno(ENOSYS) } else { default }, "{one:?}");
        }
    }
}

/// On i386: what comes through socketcall and ipc is answered as what it stands for.
#[test]
fn multiplexed_calls_are_answered_as_what_they_are() {
    let x86 = &architecture::OF_X86_64[1];
    let program = |profile| compile_for(&architecture::OF_X86_64, &serde_json::from_value(profile).unwrap()).unwrap();
    let through =
        |program: &Program, multiplexer: &str, choice: u64| x86.answer(program, multiplexer, [choice, 0, 0, 0, 0, 0]);
    let rules = json!([
        {"names": ["connect", "shmat", "semop"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 8,
            "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
    ]);
    let open = program(profile("SCMP_ACT_ALLOW", rules));
    assert_eq!(x86.answer(&open, "connect", [0; 6]), ret_errno(7));
    assert_eq!(through(&open, "socketcall", 3), ret_errno(7));
    assert_eq!(through(&open, "socketcall", 2), ALLOW);
    // The version of a call in the upper half is none of its name.
    assert_eq!(through(&open, "ipc", 21), ret_errno(7));
    assert_eq!(through(&open, "ipc", 1 << 16 | 21), ret_errno(7));
    assert_eq!(through(&open, "ipc", 1), ret_errno(7));
    assert_eq!(through(&open, "ipc", 22), ALLOW);
    // Conditions cannot be looked at: the stricter of both answers.
    assert_eq!(x86.answer(&open, "socket", [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(through(&open, "socketcall", 1), ret_errno(8));
    let rules = json!([
        {"names": ["connect"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    ]);
    let closed = program(profile("SCMP_ACT_ERRNO", rules));
    assert_eq!(through(&closed, "socketcall", 3), ALLOW);
    assert_eq!(x86.answer(&closed, "socket", [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(through(&closed, "socketcall", 1), ret_errno(EPERM));
}

#[test]
fn the_default_profile_closes_what_it_should() {
    let default = |capabilities: &oci_spec::runtime::Capabilities| {
        let mut document = serde_json::to_value(default_profile(capabilities).unwrap()).unwrap();
        // Of this machine's architectures; of those of others as well.
        assert_eq!(document["architectures"], json!(crate::seccomp::architectures()));
        document["architectures"] = profile("", json!([]))["architectures"].clone();
        compiled(&document)
    };
    let admin = default(&[oci_spec::runtime::Capability::SysAdmin].into());
    for ((one, program), (_, for_admin)) in default(&oci_spec::runtime::Capabilities::new()).iter().zip(&admin) {
        let answer = |name: &str, first: u64| one.answer(program, name, [first, 0, 0, 0, 0, 0]);
        for open in ["read", "execve", "openat", "clone", "socket", "ptrace", "futex", "statx", "personality"] {
            assert_eq!(answer(open, 0), ALLOW, "{open} {one:?}");
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
            assert_eq!(answer(closed, 0), ret_errno(EPERM), "{closed} {one:?}");
        }
        assert_eq!(answer("clone", 0x1000_0000), ret_errno(EPERM));
        assert_eq!(answer("socket", 40), ret_errno(EPERM));
        assert_eq!(answer("clone3", 0), ret_errno(ENOSYS));
        let last = syscalls::names()
            .filter_map(|name| one.number(Numbers::of(name)?))
            .filter(|n| *n < one.unordered)
            .max()
            .unwrap();
        assert_eq!(run(program, one.audit, last + 1, [0; 6]), ret_errno(ENOSYS));
        assert_eq!(one.answer(for_admin, "mount", [0; 6]), ALLOW);
    }
}
