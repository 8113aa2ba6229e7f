//! SCTP through a service. The kernel may have no SCTP sockets, but it translates SCTP: packets are made by hand.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use network::{Frontend, Protocol};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol as Number, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

use crate::conversation::{IMPATIENCE, PATIENCE, frontend};
use crate::place::within;
use crate::services::Node;

const FROM: u16 = 4000;

#[test]
fn sctp_is_led_to_an_endpoint() {
    let node = Node::new("sctp");
    let service =
        |endpoints: &[SocketAddr]| Frontend { protocol: Protocol::Sctp, ..frontend("10.96.0.10:36412", endpoints) };
    node.set(&[service(&[node.endpoint(0)])]);
    let server = raw(&node.pods[0].namespace);
    let client = raw(&node.pods[1].namespace);
    send(&client, &init(36412), "10.96.0.10:0");
    let (ip, packet) = receive(&server).expect("nothing came");
    assert_eq!(ip[12..20], [10, 244, 1, 3, 10, 244, 1, 2], "from pod b to pod a");
    assert_eq!((port(&packet, 0), port(&packet, 2)), (FROM, 8080), "to the endpoint's port");
    assert_eq!(packet[8..12], sum(&packet).to_le_bytes(), "the checksum is mended");
    node.set(&[service(&[])]);
    set_socket_timeout(&server, Timeout::Recv, Some(IMPATIENCE)).unwrap();
    send(&client, &init(36413), "10.96.0.10:0");
    assert!(receive(&server).is_none(), "another port");
}

/// All SCTP packets of a namespace.
fn raw(namespace: &Path) -> OwnedFd {
    within(namespace, || {
        let number = Number::from_raw(132.try_into().unwrap());
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(number)).unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).unwrap();
        socket
    })
}

fn send(socket: &OwnedFd, packet: &[u8], to: &str) {
    sendto(socket, packet, SendFlags::empty(), &to.parse::<SocketAddr>().unwrap()).unwrap();
}

/// The IP header and what follows it.
fn receive(socket: &OwnedFd) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut buffer = [0u8; 256];
    let (len, _) = recv(socket, &mut buffer[..], RecvFlags::empty()).ok()?;
    let header = usize::from(buffer[0] & 0xf) * 4;
    Some((buffer[..header].to_vec(), buffer[header..len].to_vec()))
}

fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// An INIT chunk (RFC 9260, 3.3.2).
fn init(to: u16) -> Vec<u8> {
    let mut packet = [FROM.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend([0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = sum(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// CRC-32C of a packet whose own checksum counts as 0.
fn sum(packet: &[u8]) -> u32 {
    let bytes = packet.iter().enumerate().map(|(at, byte)| if (8..12).contains(&at) { 0 } else { *byte });
    !bytes.fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
