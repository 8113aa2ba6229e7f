//! What differs between the tables of IPv4 and IPv6.

use std::net::IpAddr;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Whether an address is of this family.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// Bytes of an address.
    pub(crate) fn address_bytes(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// How many 32-bit registers an address fills.
    pub(crate) fn words(self) -> u32 {
        self.address_bytes() / 4
    }

    /// The ICMP code of "port unreachable".
    pub(crate) fn port_unreachable(self) -> u8 {
        match self {
            Self::V4 => 3,
            Self::V6 => 4,
        }
    }

    /// nft(8)'s number of the type of an address.
    pub(crate) fn address_type(self) -> u32 {
        match self {
            Self::V4 => 7,
            Self::V6 => 8,
        }
    }

    /// Where the source address is in the network header.
    pub(crate) fn source_offset(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    /// Where the destination address is in the network header.
    pub(crate) fn destination_offset(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }

    /// The address that stands for "any local address" in keys.
    pub(crate) fn unspecified(self) -> Vec<u8> {
        vec![0; self.address_bytes() as usize]
    }
}

/// An address as it is in a packet.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
