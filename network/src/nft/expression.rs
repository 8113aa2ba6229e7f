//! The expressions of nf_tables rules that the service rules are made of.

use crate::nfnetlink::Attributes;

/// A 32-bit register, counted from `NFT_REG32_00`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(pub u32);

impl Register {
    fn number(self) -> u32 {
        8 + self.0
    }
}

/// The verdict register.
const VERDICT: u32 = 0;
const DROP: i32 = 0;
const GOTO: i32 = -4;
const JUMP: i32 = -3;

/// `meta` keys.
const META_MARK: u32 = 3;
/// `meta l4proto`.
pub(crate) const META_L4PROTO: u32 = 16;
/// Bit of conntrack's status: the destination was translated.
pub(crate) const CT_STATUS_DNAT: u32 = 1 << 5;
/// Bit of conntrack's state: the connection's first packets.
pub(crate) const CT_STATE_NEW: u32 = 1 << 3;
/// `RTN_LOCAL`.
pub(crate) const ROUTE_LOCAL: u32 = 2;

/// The expressions of one rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expressions(Attributes);

impl Expressions {
    /// The list, as `NFTA_RULE_EXPRESSIONS` holds it.
    pub(crate) fn list(self) -> Attributes {
        self.0
    }

    fn add(self, name: &str, data: Attributes) -> Self {
        let element = Attributes::default().string(1, name).nest(2, data);
        Self(self.0.nest(1, element))
    }

    /// Loads `len` bytes of the network header.
    pub(crate) fn network(self, offset: u32, len: u32, to: Register) -> Self {
        self.payload(1, offset, len, to)
    }

    /// Loads the destination port.
    pub(crate) fn destination_port(self, to: Register) -> Self {
        self.payload(2, 2, 2, to)
    }

    fn payload(self, base: u32, offset: u32, len: u32, to: Register) -> Self {
        let data = Attributes::default().be32(1, to.number()).be32(2, base).be32(3, offset).be32(4, len);
        self.add("payload", data)
    }

    /// Loads packet metadata.
    pub(crate) fn meta(self, key: u32, to: Register) -> Self {
        self.add("meta", Attributes::default().be32(1, to.number()).be32(2, key))
    }

    /// Goes on only if conntrack's status has the bit.
    pub(crate) fn has_status(self, bit: u32, scratch: Register) -> Self {
        self.conntrack_has(2, bit, scratch)
    }

    /// Goes on only if the connection is new.
    pub(crate) fn first_of_connection(self, scratch: Register) -> Self {
        self.conntrack_has(0, CT_STATE_NEW, scratch)
    }

    fn conntrack_has(self, key: u32, bit: u32, scratch: Register) -> Self {
        let loaded = self.add("ct", Attributes::default().be32(1, scratch.number()).be32(2, key));
        loaded.mask(scratch, &bit.to_ne_bytes()).compare(scratch, false, &[0; 4])
    }

    /// Loads the route type of the source address.
    pub(crate) fn source_type(self, to: Register) -> Self {
        self.add("fib", Attributes::default().be32(1, to.number()).be32(2, 3).be32(3, 1))
    }

    /// Loads the route type of the destination address.
    pub(crate) fn destination_type(self, to: Register) -> Self {
        self.add("fib", Attributes::default().be32(1, to.number()).be32(2, 3).be32(3, 2))
    }

    /// Loads a constant.
    pub(crate) fn constant(self, value: &[u8], to: Register) -> Self {
        let data = Attributes::default().be32(1, to.number()).nest(2, Attributes::default().bytes(1, value));
        self.add("immediate", data)
    }

    /// Goes on only if the register equals (or not) the value.
    pub(crate) fn compare(self, register: Register, equal: bool, value: &[u8]) -> Self {
        let data = Attributes::default().be32(1, register.number()).be32(2, u32::from(!equal));
        self.add("cmp", data.nest(3, Attributes::default().bytes(1, value)))
    }

    /// Keeps only the bits of the mask.
    pub(crate) fn mask(self, register: Register, mask: &[u8]) -> Self {
        self.bits(register, mask, &vec![0; mask.len()])
    }

    /// Keeps the bits of the mask, then turns those of `flip` over.
    fn bits(self, register: Register, mask: &[u8], flip: &[u8]) -> Self {
        let data = Attributes::default()
            .be32(1, register.number())
            .be32(2, register.number())
            .be32(3, mask.len() as u32)
            .nest(4, Attributes::default().bytes(1, mask))
            .nest(5, Attributes::default().bytes(1, flip));
        self.add("bitwise", data)
    }

    /// Sets a bit of the packet's mark; the others are somebody else's.
    pub(crate) fn set_mark(self, bit: u32, scratch: Register) -> Self {
        let loaded = self.meta(META_MARK, scratch).bits(scratch, &(!bit).to_ne_bytes(), &bit.to_ne_bytes());
        loaded.add("meta", Attributes::default().be32(2, META_MARK).be32(3, scratch.number()))
    }

    /// Goes on only if the packet's mark has the bit.
    pub(crate) fn has_mark(self, bit: u32, scratch: Register) -> Self {
        self.meta(META_MARK, scratch).mask(scratch, &bit.to_ne_bytes()).compare(scratch, false, &[0; 4])
    }

    /// Goes on only if the key is in the set.
    pub(crate) fn in_set(self, set: &str, key: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, set).be32(2, key.number()))
    }

    /// Goes on only if the key is not in the set.
    pub(crate) fn not_in_set(self, set: &str, key: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, set).be32(2, key.number()).be32(5, 1))
    }

    /// Loads the value at the key; goes on only if there is one.
    pub(crate) fn look_up(self, map: &str, key: Register, to: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, map).be32(2, key.number()).be32(3, to.number()))
    }

    /// Takes the verdict at the key, if there is one.
    pub(crate) fn verdict_of(self, map: &str, key: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, map).be32(2, key.number()).be32(3, VERDICT))
    }

    /// Draws one of `count` numbers from `first` on.
    pub(crate) fn random(self, first: u32, count: u32, to: Register) -> Self {
        self.add("numgen", Attributes::default().be32(1, to.number()).be32(2, count).be32(3, 1).be32(4, first))
    }

    /// Remembers key and value in a map, for some time. A key that is there keeps its value and gets the time anew. Goes
    /// on only if there was room.
    pub(crate) fn remember(self, map: &str, key: Register, value: Register, milliseconds: u64) -> Self {
        let data = Attributes::default().string(1, map).be32(3, 1).be32(4, key.number()).be32(5, value.number());
        self.add("dynset", data.bytes(6, &milliseconds.to_be_bytes()))
    }

    /// Forgets a key of a map. (The kernel wants a value's register all the same.)
    pub(crate) fn forget(self, map: &str, key: Register, value: Register) -> Self {
        self.add(
            "dynset",
            Attributes::default().string(1, map).be32(3, 2).be32(4, key.number()).be32(5, value.number()),
        )
    }

    /// Translates the destination to the address and port in two registers.
    pub(crate) fn dnat(self, family: u8, address: Register, port: Register) -> Self {
        let data = Attributes::default()
            .be32(1, 1)
            .be32(2, u32::from(family))
            .be32(3, address.number())
            .be32(5, port.number());
        self.add("nat", data)
    }

    /// Translates the source to the address of the interface the packet leaves by, and to a port drawn anew, so that
    /// two connections that begin at once do not choose the same.
    pub(crate) fn masquerade(self) -> Self {
        const FULLY_RANDOM: u32 = 1 << 4;
        self.add("masq", Attributes::default().be32(1, FULLY_RANDOM))
    }

    /// Answers with an ICMP "unreachable" of the family's code.
    pub(crate) fn reject(self, code: u8) -> Self {
        self.add("reject", Attributes::default().be32(1, 0).bytes(2, &[code]))
    }

    /// Jumps to a chain and comes back.
    pub(crate) fn jump(self, chain: &str) -> Self {
        self.verdict(verdict(JUMP, Some(chain)))
    }

    /// Drops the packet.
    pub(crate) fn drop(self) -> Self {
        self.verdict(verdict(DROP, None))
    }

    fn verdict(self, data: Attributes) -> Self {
        self.add("immediate", Attributes::default().be32(1, VERDICT).nest(2, data))
    }
}

fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let code = Attributes::default().bytes(1, &code.to_be_bytes());
    let inner = match chain {
        Some(chain) => code.string(2, chain),
        None => code,
    };
    Attributes::default().nest(2, inner)
}

/// A set element: key alone.
pub(crate) fn element(key: &[u8]) -> Attributes {
    Attributes::default().nest(1, Attributes::default().bytes(1, key))
}

/// An element that holds all keys from one to another.
pub(crate) fn range(first: &[u8], last: &[u8]) -> Attributes {
    element(first).nest(10, Attributes::default().bytes(1, last))
}

/// A map element whose value is bytes.
pub(crate) fn mapping(key: &[u8], value: &[u8]) -> Attributes {
    element(key).nest(2, Attributes::default().bytes(1, value))
}

/// A map element whose value is "go to that chain".
pub(crate) fn branch(key: &[u8], chain: &str) -> Attributes {
    element(key).nest(2, verdict(GOTO, Some(chain)))
}

/// A map element whose value is "drop the packet".
pub(crate) fn barrier(key: &[u8]) -> Attributes {
    element(key).nest(2, verdict(DROP, None))
}
