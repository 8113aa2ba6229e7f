//! The expressions of nf_tables rules that the service rules are made of.

use super::wire::Attributes;

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
const GOTO: i32 = -4;
const JUMP: i32 = -3;
const RETURN: i32 = -5;

/// `meta` keys.
pub(crate) const META_MARK: u32 = 3;
/// `meta l4proto`.
pub(crate) const META_L4PROTO: u32 = 16;
/// Bit of conntrack's status: the destination was translated.
pub(crate) const CT_STATUS_DNAT: u32 = 1 << 5;
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

    /// Sets packet metadata.
    pub(crate) fn set_meta(self, key: u32, from: Register) -> Self {
        self.add("meta", Attributes::default().be32(2, key).be32(3, from.number()))
    }

    /// Loads conntrack's status.
    pub(crate) fn conntrack_status(self, to: Register) -> Self {
        self.add("ct", Attributes::default().be32(1, to.number()).be32(2, 2))
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
        let zero = vec![0; mask.len()];
        let data = Attributes::default()
            .be32(1, register.number())
            .be32(2, register.number())
            .be32(3, mask.len() as u32)
            .nest(4, Attributes::default().bytes(1, mask))
            .nest(5, Attributes::default().bytes(1, &zero));
        self.add("bitwise", data)
    }

    /// Goes on only if the key is in the set.
    pub(crate) fn in_set(self, set: &str, key: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, set).be32(2, key.number()))
    }

    /// Loads the value at the key; goes on only if there is one.
    pub(crate) fn look_up(self, map: &str, key: Register, to: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, map).be32(2, key.number()).be32(3, to.number()))
    }

    /// Takes the verdict at the key, if there is one.
    pub(crate) fn verdict_of(self, map: &str, key: Register) -> Self {
        self.add("lookup", Attributes::default().string(1, map).be32(2, key.number()).be32(3, VERDICT))
    }

    /// Draws a number below `bound`.
    pub(crate) fn random(self, bound: u32, to: Register) -> Self {
        self.add("numgen", Attributes::default().be32(1, to.number()).be32(2, bound).be32(3, 1))
    }

    /// Remembers key and value in a map, for some time.
    pub(crate) fn remember(self, map: &str, key: Register, value: Register, milliseconds: u64) -> Self {
        let data = Attributes::default()
            .string(1, map)
            .be32(3, 1)
            .be32(4, key.number())
            .be32(5, value.number())
            .bytes(6, &milliseconds.to_be_bytes());
        self.add("dynset", data)
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

    /// Translates the source to the address of the interface the packet leaves by.
    pub(crate) fn masquerade(self) -> Self {
        self.add("masq", Attributes::default())
    }

    /// Answers with an ICMP "unreachable" of the family's code.
    pub(crate) fn reject(self, code: u8) -> Self {
        self.add("reject", Attributes::default().be32(1, 0).bytes(2, &[code]))
    }

    /// Jumps to a chain and comes back.
    pub(crate) fn jump(self, chain: &str) -> Self {
        self.verdict(verdict(JUMP, Some(chain)))
    }

    /// Leaves the chain.
    pub(crate) fn back(self) -> Self {
        self.verdict(verdict(RETURN, None))
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

/// A map element whose value is bytes.
pub(crate) fn mapping(key: &[u8], value: &[u8]) -> Attributes {
    element(key).nest(2, Attributes::default().bytes(1, value))
}

/// A map element whose value is "go to that chain".
pub(crate) fn branch(key: &[u8], chain: &str) -> Attributes {
    element(key).nest(2, verdict(GOTO, Some(chain)))
}
