//! The guard against server-side request forgery (SSRF). It admits public addresses and configured ranges.
//!
//! A caller names the host of its callback, and the owner of a domain decides its addresses. So the guard checks the
//! address after resolution, and the sender connects to the address that was checked. Public are the addresses outside
//! the special-purpose registries of IANA (RFC 6890). Of IPv6 only global unicast (`2000::/3`) is public.
//!
//! The module is pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The IPv4 ranges that are not public.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),        // this network
    v4([10, 0, 0, 0], 8),       // private
    v4([100, 64, 0, 0], 10),    // shared by carriers
    v4([127, 0, 0, 0], 8),      // loopback
    v4([168, 63, 129, 16], 32), // the host of a virtual machine on Azure
    v4([169, 254, 0, 0], 16),   // link-local, metadata of clouds
    v4([172, 16, 0, 0], 12),    // private
    v4([192, 0, 0, 0], 24),     // IETF protocol assignments
    v4([192, 0, 2, 0], 24),     // documentation
    v4([192, 88, 99, 0], 24),   // 6to4 relays, retired
    v4([192, 168, 0, 0], 16),   // private
    v4([198, 18, 0, 0], 15),    // benchmarks
    v4([198, 51, 100, 0], 24),  // documentation
    v4([203, 0, 113, 0], 24),   // documentation
    v4([224, 0, 0, 0], 4),      // multicast
    v4([240, 0, 0, 0], 4),      // reserved, broadcast
];

/// Global unicast, which contains every public IPv6 address.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);
/// The ranges of global unicast that are not public.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),     // IETF protocol assignments: Teredo, benchmarks, ORCHID
    v6([0x2001, 0xdb8, 0], 32), // documentation
    v6([0x2002, 0, 0], 16),     // 6to4, retired
    v6([0x3fff, 0, 0], 20),     // documentation
];
/// The IPv4 addresses as machines with only IPv6 reach them (NAT64, RFC 6052).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// Admits public addresses and the addresses of some ranges.
#[derive(Debug, Clone)]
pub(super) struct SsrfGuard {
    allowed: Box<[IpNet]>,
}

impl SsrfGuard {
    /// Creates a guard that admits these ranges too, public or not.
    pub(super) fn new(allowed: &[IpNet]) -> Self {
        Self { allowed: allowed.into() }
    }

    /// Returns whether a delivery may go to this address. An IPv6 address that embeds an IPv4 address counts as that one,
    /// because packets end up there.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        let destination = destination(address);
        self.allowed.iter().any(|range| range.contains(&address) || range.contains(&destination))
            || is_public(destination)
    }
}

/// Returns the address where packets end up. Mapped and NAT64 addresses embed an IPv4 address.
fn destination(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if NAT64.contains(&address) => IpAddr::V4(last_four(address)),
        address => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|range| range.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address)
                && !SPECIAL_V6.iter().any(|range| range.contains(&address))
                && (!is_isatap(address) || is_public(IpAddr::V4(last_four(address))))
        }
    }
}

/// Returns whether the interface identifier embeds an IPv4 address (ISATAP, RFC 5214). A site's router would forward
/// the packet to it.
fn is_isatap(address: Ipv6Addr) -> bool {
    let [_, _, _, _, high, low, _, _] = address.segments();
    high & !0x0200 == 0 && low == 0x5efe
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests;
