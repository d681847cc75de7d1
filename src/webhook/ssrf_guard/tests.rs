use proptest::prelude::*;
use url::{Host, Url};

use super::*;

fn strict() -> SsrfGuard {
    SsrfGuard::new(&[])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

#[test]
fn special_address_is_refused() {
    let ipv4 = "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 \
        127.0.0.0 127.0.0.1 127.255.255.255 168.63.129.16 169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255 \
        172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.170 192.0.0.192 192.0.0.255 192.0.2.0 192.0.2.255 \
        192.88.99.0 192.88.99.255 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.0 198.51.100.255 \
        203.0.113.0 203.0.113.255 224.0.0.0 239.255.255.255 240.0.0.0 255.255.255.254 255.255.255.255";
    let ipv4_in_ipv6 = "::127.0.0.1 ::8.8.8.8 ::ffff:0:8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 \
        ::ffff:169.254.169.254 ::ffff:0.0.0.0 64:ff9b::127.0.0.1 64:ff9b::10.1.2.3 64:ff9b::169.254.169.254 \
        64:ff9b::1:0:0 64:ff9b:1::8.8.8.8 64:ff9b:1:ffff::1 2002:7f00:1:: 2002:808:808::1 2002:a00:1::1 2001::1 \
        2001:0:4136:e378:8000:63bf:3fff:fdd2 2607:f8b0:4005:805::5efe:a00:1 2607:f8b0:4005:805:200:5efe:7f00:1 \
        2607:f8b0::5efe:a9fe:a9fe";
    let ipv6 = ":: ::1 ::2 100:: 100::ffff 100:0:0:1::1 200::1 400::1 1000::1 1fff:ffff::1 2001:1::1 2001:2:: \
        2001:2:0:ffff:: 2001:10::1 2001:20::1 2001:2f:ffff::1 2001:1ff::1 2001:db8:: \
        2001:db8:ffff:ffff:ffff:ffff:ffff:ffff 3fff:: 3fff:fff::1 4000::1 5f00::1 5f00:ffff:: 8000::1 e000::1 fc00:: \
        fc00::1 fd00:ec2::254 fd20:ce::254 fdff:ffff::1 fe80::1 fe80::a9fe:a9fe febf:ffff::1 fec0::1 feff::1 ff00:: \
        ff02::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for address in [ipv4, ipv4_in_ipv6, ipv6].into_iter().flat_map(str::split_whitespace) {
        assert!(!strict().admits(ip(address)), "{address}");
    }
}

/// Checks the neighbours of each range and some well-known addresses.
#[test]
fn public_address_is_admitted() {
    let ipv4 = "1.0.0.0 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
        168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 \
        192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 \
        198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255";
    let ipv6 = "::ffff:8.8.8.8 64:ff9b::8.8.8.8 2000::1 2001:200::1 2001:4860:4860::8888 2001:db7::1 2001:db9::1 \
        2003::1 2606:4700:4700::1111 2620:fe::fe 2a00:1450:4001::1 3ffe:ffff::1 3fff:1000::1 \
        2607:f8b0:4005:805::5efe:808:808";
    for address in [ipv4, ipv6].into_iter().flat_map(str::split_whitespace) {
        assert!(strict().admits(ip(address)), "{address}");
    }
}

#[test]
fn address_in_an_allowed_range_is_admitted() {
    let guard = |range: &str| SsrfGuard::new(&[range.parse().unwrap()]);
    for (range, inside, outside) in [
        ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
        ("10.1.0.0/16", "::ffff:10.1.0.1", "::ffff:10.0.0.1"),
        ("10.1.0.0/16", "64:ff9b::10.1.0.1", "64:ff9b::10.0.0.1"),
        ("10.1.0.0/16", "10.1.0.1", "2002:a01:1::"),
        ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
        ("127.0.0.0/8", "127.1.2.3", "::1"),
        ("::1/128", "::1", "127.0.0.1"),
        ("::ffff:10.0.0.0/104", "::ffff:10.9.9.9", "::ffff:192.168.0.1"),
        ("fd00::/8", "fd00:ec2::254", "fc00::1"),
        ("64:ff9b:1::/48", "64:ff9b:1::a00:1", "64:ff9b:2::a00:1"),
    ] {
        assert!(guard(range).admits(ip(inside)), "{inside} in {range}");
        assert!(!guard(range).admits(ip(outside)), "{outside} beside {range}");
    }
}

/// The URL parser reads the spellings that browsers take for addresses as addresses, so the resolver gets none of them.
#[test]
fn odd_spelling_of_an_address_is_read_as_the_address() {
    for (host, address) in [
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F.0.0.0x1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("%31%32%37.0.0.1", "127.0.0.1"),
        ("127%2e0%2E0.1", "127.0.0.1"),
        ("１２７．０．０．１", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("169.254.43518", "169.254.169.254"),
        ("2852039166", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("0", "0.0.0.0"),
        ("[::ffff:127.0.0.1]", "::ffff:7f00:1"),
        ("[0:0:0:0:0:ffff:7f00:0001]", "::ffff:7f00:1"),
        ("[::1]", "::1"),
        ("[0000::0001]", "::1"),
        ("[fe80::1]", "fe80::1"),
    ] {
        let url = Url::parse(&format!("http://{host}/hook")).unwrap_or_else(|e| panic!("{host}: {e}"));
        let read = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            other => panic!("{host} is read as {other:?}"),
        };
        assert_eq!(read, ip(address), "{host}");
        assert!(!strict().admits(read), "{host}");
    }
}

#[test]
fn host_that_resembles_an_address_is_no_url() {
    for host in
        "256.0.0.1 127.0.0.1.1 1.2.3.0x100 4294967296 0x1ffffffff 127..1 09.0.0.1 [::ffff:127.0.0.256] \
        [::1%25eth0] [fe80::1%eth0] [127.0.0.1] [::1 ::1 %00 a%2fb 127.0.0.1%00.example.com"
            .split_whitespace()
    {
        assert!(Url::parse(&format!("http://{host}/hook")).is_err(), "{host}");
    }
}

proptest! {
    #[test]
    fn embedded_ipv4_address_is_judged_as_itself(bits in any::<u32>()) {
        let plain = Ipv4Addr::from(bits);
        let verdict = strict().admits(plain.into());
        prop_assert_eq!(strict().admits(plain.to_ipv6_mapped().into()), verdict);
        let translated = Ipv6Addr::from(0x0064_ff9b_u128 << 96 | u128::from(bits));
        prop_assert_eq!(strict().admits(translated.into()), verdict);
        prop_assert!(!strict().admits(Ipv6Addr::from(u128::from(bits)).into()));
    }

    #[test]
    fn address_special_by_the_standard_library_is_refused(bits in any::<u32>()) {
        let address = Ipv4Addr::from(bits);
        let special = address.is_private() || address.is_loopback() || address.is_link_local()
            || address.is_broadcast() || address.is_documentation() || address.is_multicast()
            || address.is_unspecified();
        prop_assert!(!(special && strict().admits(address.into())));
    }

    #[test]
    fn every_address_of_an_allowed_range_is_admitted(bits in any::<u32>(), prefix in 0_u8..=32, other in any::<u32>()) {
        let range = Ipv4Net::new(Ipv4Addr::from(bits), prefix).unwrap().trunc();
        let inside = u32::from(range.network()) | (other & u32::from(range.hostmask()));
        let guard = SsrfGuard::new(&[range.into()]);
        prop_assert!(guard.admits(Ipv4Addr::from(inside).into()));
    }
}
