//! Programs that make one system call, in the machine's own code: what a filter answers to calls of each architecture.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// How a program calls the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Abi {
    X86_64,
    /// 32 bits, by `int 0x80`.
    X86,
    X32,
}

/// The bit in the numbers of x32.
const X32_BIT: u32 = 0x4000_0000;
/// Where a program lies in memory.
const BASE: u32 = 0x1_0000;

/// Writes a program that makes one call and ends with the number of its error, or 0.
pub(crate) fn write(path: &Path, abi: Abi, number: u32, arguments: &[u32]) {
    fs::write(path, program(abi, number, arguments)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn program(abi: Abi, number: u32, arguments: &[u32]) -> Vec<u8> {
    let number = if abi == Abi::X32 { number | X32_BIT } else { number };
    let mut code = vec![0xb8]; // mov eax, NUMBER
    code.extend(number.to_le_bytes());
    // mov REGISTER, ARGUMENT: ebx ecx edx esi edi, or edi esi edx r10d r8d
    let registers: [&[u8]; 5] = match abi {
        Abi::X86 => [&[0xbb], &[0xb9], &[0xba], &[0xbe], &[0xbf]],
        Abi::X86_64 | Abi::X32 => [&[0xbf], &[0xbe], &[0xba], &[0x41, 0xba], &[0x41, 0xb8]],
    };
    for (register, argument) in registers.iter().zip(arguments) {
        code.extend(*register);
        code.extend(argument.to_le_bytes());
    }
    let call: [u8; 2] = if abi == Abi::X86 { [0xcd, 0x80] } else { [0x0f, 0x05] };
    code.extend(call);
    code.extend([0xf7, 0xd8, 0x79, 0x02, 0x31, 0xc0]); // neg eax; jns over; xor eax, eax
    // mov ebx, eax; mov eax, exit -- or edi
    code.extend(if abi == Abi::X86 { [0x89, 0xc3, 0xb8, 1, 0, 0, 0] } else { [0x89, 0xc7, 0xb8, 60, 0, 0, 0] });
    code.extend(call);
    let mut file = if abi == Abi::X86 { head_32(code.len() as u32) } else { head_64(code.len() as u64) };
    file.extend(code);
    file
}

fn words(file: &mut Vec<u8>, words: &[u32]) {
    words.iter().for_each(|word| file.extend(word.to_le_bytes()));
}

fn halves(file: &mut Vec<u8>, halves: &[u16]) {
    halves.iter().for_each(|half| file.extend(half.to_le_bytes()));
}

/// ELF and program header (elf(5)): one segment, read and executed.
fn head_32(code: u32) -> Vec<u8> {
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    halves(&mut file, &[2, 3]);
    words(&mut file, &[1, BASE + 84, 52, 0, 0]);
    halves(&mut file, &[52, 32, 1, 0, 0, 0]);
    words(&mut file, &[1, 0, BASE, BASE, 84 + code, 84 + code, 5, 4096]);
    file
}

fn head_64(code: u64) -> Vec<u8> {
    let longs = |file: &mut Vec<u8>, longs: &[u64]| longs.iter().for_each(|long| file.extend(long.to_le_bytes()));
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    halves(&mut file, &[2, 62]);
    words(&mut file, &[1]);
    longs(&mut file, &[u64::from(BASE) + 120, 64, 0]);
    words(&mut file, &[0]);
    halves(&mut file, &[64, 56, 1, 0, 0, 0]);
    words(&mut file, &[1, 5]);
    longs(&mut file, &[0, u64::from(BASE), u64::from(BASE), 120 + code, 120 + code, 4096]);
    file
}
