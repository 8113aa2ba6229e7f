//! Network devices of the host that move into a container (config-linux.md, Network Devices), by rtnetlink(7). What a
//! device has of its own (MTU, MAC, master) it keeps; its addresses are lost on the way, so those of global scope are
//! taken along.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::LinuxNetDevice;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Error, Result, failed};

/// Names are shorter than IFNAMSIZ.
const MAX_NAME: usize = 15;
/// Answers longer than this are cut; a device with as many addresses has others to worry about.
const ANSWER_BYTES: usize = 64 << 10;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_F_PERMANENT: u8 = 0x80;
const SCOPE_GLOBAL: u8 = 0;

const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// Moves devices from our network namespace into that of a process, and brings them up there.
pub(crate) fn move_all(devices: &HashMap<String, LinuxNetDevice>, pid: i32) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let namespace = open_namespace(&format!("/proc/{pid}/ns/net"))?;
    let own = open_namespace("/proc/self/ns/net")?;
    let mut names: Vec<&String> = devices.keys().collect();
    names.sort();
    for name in names {
        let inside = devices.get(name).and_then(|d| d.name().as_deref()).filter(|n| !n.is_empty()).unwrap_or(name);
        move_one(name, inside, &namespace, &own)
            .map_err(|e| Error::System(format!("linux.netDevices: move {name} as {inside}"), e))?;
    }
    Ok(())
}

fn open_namespace(path: &str) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(failed(|| format!("open {path}")))
}

fn move_one(name: &str, inside: &str, namespace: &OwnedFd, own: &OwnedFd) -> std::io::Result<()> {
    if !is_name(name) || name.contains('%') || !is_name(inside) {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    }
    let socket = open_socket()?;
    let index = index_of(socket.as_fd(), name)?;
    let addresses = global_addresses(socket.as_fd(), index)?;
    // The kernel takes no other name for a device that is up.
    ask(socket.as_fd(), &link(NEW_LINK, index, Some(false), &[]))?;
    let descriptor = namespace.as_raw_fd().to_ne_bytes();
    // The kernel does not say what it makes of a template: until it may, the device has a name that is ours.
    let template = inside.contains('%');
    let arrival = if template { format!("tt{index}") } else { inside.to_owned() };
    ask(
        socket.as_fd(),
        &link(NEW_LINK, index, None, &[(IFLA_NET_NS_FD, &descriptor), (IFLA_IFNAME, &text(&arrival))]),
    )?;
    // The rest is done in there: our one thread goes, and comes back.
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let settled = settle(&arrival, template.then_some(inside), &addresses);
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))?;
    settled
}

/// What the kernel takes for a name, or a template of one: with one `%d` (net/core/dev.c, dev_valid_name).
fn is_name(name: &str) -> bool {
    let plain = |name: &str| !name.contains(['/', ':', '\0', ' ', '%']);
    let parts = name.split_once("%d").map_or(plain(name), |(before, after)| plain(before) && plain(after));
    parts && (1..=MAX_NAME).contains(&name.len()) && !matches!(name, "." | "..")
}

/// A text as the kernel reads it.
fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn settle(name: &str, template: Option<&str>, addresses: &[Vec<u8>]) -> std::io::Result<()> {
    let socket = open_socket()?;
    let index = index_of(socket.as_fd(), name)?;
    if let Some(template) = template {
        ask(socket.as_fd(), &link(NEW_LINK, index, None, &[(IFLA_IFNAME, &text(template))]))?;
    }
    for address in addresses {
        let mut address = address.clone();
        if let Some(place) = address.get_mut(4..8) {
            place.copy_from_slice(&index.to_ne_bytes());
        }
        ask(socket.as_fd(), &message(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE, &address))?;
    }
    ask(socket.as_fd(), &link(NEW_LINK, index, Some(true), &[]))
}

fn open_socket() -> std::io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// The index of a device.
fn index_of(socket: BorrowedFd<'_>, name: &str) -> std::io::Result<u32> {
    send(socket, &link(GET_LINK, 0, None, &[(IFLA_IFNAME, &text(name))]), SendFlags::empty())?;
    let found = receive(socket)?.into_iter().find(|(kind, _)| *kind == NEW_LINK);
    let index = found.and_then(|(_, body)| word(&body, 4));
    index.ok_or_else(|| std::io::Error::from_raw_os_error(libc::ENODEV))
}

/// The addresses of a device that are not of its link alone, as messages to give them again.
fn global_addresses(socket: BorrowedFd<'_>, index: u32) -> std::io::Result<Vec<Vec<u8>>> {
    send(socket, &message(GET_ADDRESS, REQUEST | DUMP, &[0; ADDRESS]), SendFlags::empty())?;
    let (mut addresses, mut done) = (Vec::new(), false);
    while !done {
        for (kind, body) in receive(socket)? {
            done |= kind == MESSAGE_DONE;
            // struct ifaddrmsg: family, prefix length, flags, scope, index.
            let head = (body.get(2).copied(), body.get(3).copied(), word(&body, 4));
            if let (NEW_ADDRESS, (Some(flags), Some(SCOPE_GLOBAL), Some(on))) = (kind, head)
                && on == index
                && flags & IFA_F_PERMANENT != 0
            {
                addresses.push(body);
            }
        }
    }
    Ok(addresses)
}

/// Sends a request and waits until it is done.
fn ask(socket: BorrowedFd<'_>, request: &[u8]) -> std::io::Result<()> {
    send(socket, request, SendFlags::empty())?;
    receive(socket).map(|_| ())
}

/// The messages of one answer: kind and body. An error is one of ours.
fn receive(socket: BorrowedFd<'_>) -> std::io::Result<Vec<(u16, Vec<u8>)>> {
    let mut buffer = vec![0; ANSWER_BYTES];
    let (n, _) = rustix::io::retry_on_intr(|| recv(socket, buffer.as_mut_slice(), RecvFlags::empty()))?;
    let mut left = buffer.get(..n).unwrap_or_default();
    let mut messages = Vec::new();
    while let (Some(length), Some(kind)) = (word(left, 0), left.get(4..6)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = left.get(HEADER..length) else { break };
        let kind = kind.try_into().map_or(0, u16::from_ne_bytes);
        if kind == MESSAGE_ERROR
            && let Some(error @ 1..) = word(body, 0).map(|n| (n as i32).wrapping_neg())
        {
            return Err(std::io::Error::from_raw_os_error(error));
        }
        messages.push((kind, body.to_vec()));
        left = left.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A message about a link: struct ifinfomsg, then attributes.
fn link(kind: u16, index: u32, up: Option<bool>, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let flag = |set: bool| u32::from(set) * libc::IFF_UP as u32;
    let mut body = vec![0; LINK];
    for (at, value) in [(4, index), (8, flag(up == Some(true))), (12, flag(up.is_some()))] {
        if let Some(place) = body.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
    for (kind, value) in attributes {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(value.iter().copied()));
        body.resize(body.len().next_multiple_of(4), 0);
    }
    // A question is answered by what it asks for.
    let flags = if kind == GET_LINK { REQUEST } else { REQUEST | ACKNOWLEDGE };
    message(kind, flags, &body)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let head = length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()).chain(flags.to_ne_bytes());
    head.chain([0; 8]).chain(body.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel() {
        for good in ["eth0", "a", "eth%d", "%d", "fifteen-letters"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "eth%", "eth%s", "%d%d", "sixteen--letters"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
