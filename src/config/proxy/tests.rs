use std::io;
use std::path::Path;

use secrecy::ExposeSecret as _;

use crate::config::{Config, ConfigErrors, ConfigWarning, FileText, ProxyConfig, read};

const BOT: &str = concat!(
    "\n[store]\nurl = \"memory://\"\n",
    include_str!("../../../tests/fixtures/bot.toml"),
    "client_secret = \"hush-hush\"\n"
);

fn files(path: &Path) -> io::Result<FileText> {
    match path.to_str() {
        Some("/secrets/plain") => Ok("hush: hush\n".to_owned().into()),
        Some("/secrets/url") => Ok("http://bridge:hush@own.example:1\n".to_owned().into()),
        Some("/tls/ca.crt") => Ok(include_str!("../../../tests/fixtures/tls/ca.crt").to_owned().into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn with(text: &str, env: &[(&str, &str)]) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
    read(text, "bridge.toml", env.iter().copied(), &files)
}

fn good(text: &str, env: &[(&str, &str)]) -> (Config, Vec<ConfigWarning>) {
    with(text, env).unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

/// Returns the proxy of the bot.
fn of_bot(text: &str, env: &[(&str, &str)]) -> Option<ProxyConfig> {
    good(text, env).0.bots[0].proxy.as_deref().cloned()
}

/// Returns host and port of the proxy of the bot, with the key or variable.
fn named(text: &str, env: &[(&str, &str)]) -> Option<String> {
    of_bot(text, env).map(|proxy| format!("{proxy} {}", proxy.origin))
}

const PROXY: &str = "[proxy]\nurl = \"http://proxy.example:3128\"\n";

#[test]
fn proxy_of_a_bot_follows_its_keys_and_the_environment() {
    let http = BOT.replace("https://", "http://");
    let (upper, lower) =
        (("HTTPS_PROXY", "http://upper.example:1"), ("https_proxy", "http://lower.example:2"));
    let plain = ("HTTP_PROXY", "plain.example:3");
    let with_proxy = format!("{BOT}{PROXY}");
    for (text, env, expected) in [
        (BOT.to_owned(), &[][..], None),
        (BOT.to_owned(), &[upper][..], Some("upper.example:1 HTTPS_PROXY")),
        (BOT.to_owned(), &[upper, lower], Some("lower.example:2 https_proxy")),
        (BOT.to_owned(), &[("HTTPS_PROXY", "")], None),
        (BOT.to_owned(), &[plain], None),
        (http.clone(), &[plain, upper], Some("plain.example:3 HTTP_PROXY")),
        (http, &[upper], None),
        (with_proxy.clone(), &[upper], Some("proxy.example:3128 proxy.url")),
        (with_proxy.clone(), &[("RTM_BRIDGE__PROXY__URL", "e.example")], Some("e.example:80 proxy.url")),
        (
            with_proxy.replace("http://p", "https://p").replace(":3128", ""),
            &[],
            Some("proxy.example:443 proxy.url"),
        ),
        (format!("{BOT}proxy = false\n{PROXY}"), &[upper], None),
        (format!("{BOT}proxy = true\n{PROXY}"), &[], Some("proxy.example:3128 proxy.url")),
        (
            format!("{BOT}proxy = \"http://own.example:9\"\n{PROXY}"),
            &[upper],
            Some("own.example:9 bots.support.proxy"),
        ),
        (format!("{BOT}proxy_file = \"/secrets/url\""), &[], Some("own.example:1 bots.support.proxy")),
        (with_proxy.clone(), &[("RTM_BRIDGE__BOTS__SUPPORT__PROXY", "false")], None),
        (
            with_proxy,
            &[("RTM_BRIDGE__BOTS__SUPPORT__PROXY", "e.example:5")],
            Some("e.example:5 bots.support.proxy"),
        ),
    ] {
        assert_eq!(named(&text, env).as_deref(), expected, "{text} {env:?}");
    }
}

#[test]
fn webhooks_have_a_proxy_only_if_they_name_it() {
    let upper = ("HTTPS_PROXY", "http://upper.example:1");
    for (text, env, expected) in [
        (format!("{BOT}{PROXY}"), &[upper][..], None),
        (format!("{BOT}{PROXY}[webhooks]\nproxy = true"), &[upper][..], Some("proxy.example:3128")),
        (format!("{BOT}[webhooks]\nproxy = true"), &[upper], Some("upper.example:1")),
        (format!("{BOT}{PROXY}[webhooks]\nproxy = \"http://own.example:9\""), &[], Some("own.example:9")),
        (format!("{BOT}{PROXY}[webhooks]\nproxy = false"), &[], None),
    ] {
        let proxy = good(&text, env).0.webhooks.proxy.map(|proxy| proxy.to_string());
        assert_eq!(proxy.as_deref(), expected, "{text}");
    }
}

#[test]
fn credentials_come_from_the_url_or_the_keys() {
    let keys = "username = \"bridge\"\npassword_file = \"/secrets/plain\"\n";
    let in_url = ("https_proxy", "http://br%C3%BCcke:hu%20sh@proxy.example");
    let twin = "proxy = \"http://proxy.example:3128\"\n";
    let other = "proxy = \"http://own.example\"\n";
    for (text, env, expected) in [
        (format!("{BOT}{PROXY}"), &[][..], None),
        (format!("{BOT}{PROXY}{keys}"), &[][..], Some(("bridge", "hush: hush"))),
        (BOT.to_owned(), &[in_url], Some(("brücke", "hu sh"))),
        (format!("{BOT}[proxy]\n{keys}"), &[in_url], Some(("bridge", "hush: hush"))),
        (format!("{BOT}[proxy]\nurl = \"http://u@h\""), &[], Some(("u", ""))),
        (format!("{BOT}{twin}{PROXY}{keys}"), &[], Some(("bridge", "hush: hush"))),
        // No password goes to another proxy than its own.
        (format!("{BOT}{other}{PROXY}{keys}"), &[], None),
    ] {
        let proxy = of_bot(&text, env).unwrap();
        let found =
            proxy.credentials.as_ref().map(|found| (&*found.username, found.password.expose_secret()));
        assert_eq!(found, expected, "{text}");
        assert!(!format!("{proxy:?} {proxy}").contains("hu"), "secrets are not for Debug: {proxy:?}");
    }
    let proxy = of_bot(&format!("{BOT}{PROXY}{keys}"), &[]).unwrap();
    assert_eq!(proxy.credentials.unwrap().authorization().expose_secret(), "Basic YnJpZGdlOmh1c2g6IGh1c2g=");
}

#[test]
fn no_proxy_comes_from_its_key_or_the_environment() {
    let env = [
        ("https_proxy", "proxy.example"),
        ("NO_PROXY", "10.0.0.0/8, corp.example ,?,*.x:1"),
        ("no_proxy", ""),
    ];
    let (config, warnings) = good(BOT, &env);
    let proxy = config.bots[0].proxy.clone().unwrap();
    for (host, port, through) in [
        ("bots.kore.ai", 443, true),
        ("10.1.2.3", 443, false),
        ("kore.corp.example", 443, false),
        ("a.x", 1, false),
        ("a.x", 2, true),
        // This machine is reached without a proxy of the environment.
        ("127.0.0.1", 80, false),
        ("localhost", 80, false),
        ("[::1]", 80, false),
    ] {
        assert_eq!(proxy.serves(host, port), through, "{host}:{port}");
    }
    assert!(
        warnings.iter().any(|warning| warning.message.contains("NO_PROXY: `?` is neither")),
        "{warnings:?}"
    );

    let (no, entries) = ("NO_PROXY=corp.example", &[("NO_PROXY", "corp.example")]);
    let given = of_bot(&format!("{BOT}{PROXY}"), entries).unwrap();
    assert!(!given.serves("corp.example", 1) && given.serves("127.0.0.1", 1), "{no}");
    for key in ["no_proxy = [\"a.example\"]", "no_proxy = \"b.example, a.example\""] {
        let given = of_bot(&format!("{BOT}{PROXY}{key}"), entries).unwrap();
        assert!(given.serves("corp.example", 1) && !given.serves("a.example", 1), "{key}");
    }
    let none = of_bot(&format!("{BOT}{PROXY}no_proxy = []"), entries).unwrap();
    assert!(none.serves("corp.example", 1));
    let env = [("RTM_BRIDGE__PROXY__NO_PROXY", "a.example,b.example"), ("RTM_BRIDGE__PROXY__URL", "h")];
    assert!(!of_bot(BOT, &env).unwrap().serves("b.example", 1));
}

#[test]
fn error_in_a_proxy_names_its_key_and_no_secret() {
    for (text, key, words) in [
        ("[proxy]\nurl = \"socks5://u:hush@h\"", "proxy.url", "scheme socks5"),
        ("[proxy]\nurl = \"http://u:hush@\"", "proxy.url", "no URL"),
        ("[proxy]\nurl = \"http://h/hush\"", "proxy.url", "more than scheme"),
        ("[proxy]\nurl = \"http://u%3Ahush:x@h\"", "proxy.url", "colon"),
        ("[proxy]\nurl = \"http://u%FF:hush@h\"", "proxy.url", "UTF-8"),
        ("[proxy]\nurl = 3128", "proxy.url", "a number"),
        ("[proxy]\nurl = \"http://h\"\nusername = \"u\"", "proxy.username", "or neither"),
        ("[proxy]\nurl = \"http://h\"\npassword = \"hush\"", "proxy.password", "or neither"),
        ("[proxy]\nurl = \"http://h\"\nusername = \"u:hush\"\npassword = \"x\"", "proxy.username", "colon"),
        ("[proxy]\nurl = \"http://u:hush@h\"\nusername = \"u\"\npassword = \"x\"", "proxy.url", "keep one"),
        ("[proxy]\nurl = \"http://h\"\nca_file = \"/secrets/plain\"", "proxy.ca_file", "no certificate"),
        ("[proxy]\nurl = \"http://h\"\nno_proxy = [\"http://a\"]", "proxy.no_proxy", "`http://a` is neither"),
        ("[proxy]\nurl = \"http://h\"\nno_proxys = []", "proxy.no_proxys", "did you mean `no_proxy`"),
        ("[webhooks]\nproxy = true", "webhooks.proxy", "there is no proxy"),
        ("[webhooks]\nproxy = \"ftp://u:hush@h\"", "webhooks.proxy", "scheme ftp"),
        ("[webhooks]\nproxy = \"true\"", "webhooks.proxy", "without quotes"),
        ("[webhooks]\nproxy = \"none\"", "webhooks.proxy", "write false"),
        ("[webhooks]\nproxy = 7", "webhooks.proxy", "true or false"),
    ] {
        let errors = with(&format!("{BOT}{text}"), &[]).map(|(config, _)| config).expect_err(text);
        let found: Vec<_> = errors.iter().collect();
        let [error] = found.as_slice() else { panic!("one error expected for {text}: {errors}") };
        assert!(error.key == key && error.message.contains(words), "{text}: {errors}");
        assert!(!errors.to_string().contains("hush"), "{errors}");
    }
    let env = [("HTTPS_PROXY", "socks5://u:hush@h")];
    let errors = with(BOT, &env).map(|(config, _)| config).unwrap_err().to_string();
    assert!(errors.contains("HTTPS_PROXY has the scheme socks5") && !errors.contains("hush"), "{errors}");
    assert_eq!(named(&format!("{BOT}{PROXY}"), &env).as_deref(), Some("proxy.example:3128 proxy.url"));
}

#[test]
fn password_in_a_file_and_keys_without_effect_are_warned_of() {
    let warned = |text: &str, env: &[(&str, &str)]| -> Vec<(String, String)> {
        let (_, warnings) = good(&format!("{BOT}{text}"), env);
        warnings.into_iter().map(|warning| (warning.key, warning.message)).collect()
    };
    for (text, env, expected) in [
        ("[proxy]\nurl = \"http://u:hush@h\"", &[][..], &[("proxy.url", "holds a user and password")][..]),
        ("proxy = \"http://u:hush@h\"", &[], &[("bots.support.proxy", "proxy_file")]),
        ("", &[("RTM_BRIDGE__PROXY__URL", "http://u:hush@h")], &[]),
        ("", &[("HTTPS_PROXY", "http://u:hush@h")], &[]),
        ("[proxy]\nno_proxy = [\"a\"]", &[], &[("proxy.no_proxy", "no effect")]),
        ("[proxy]\nno_proxy = [\"a\"]", &[("HTTPS_PROXY", "h")], &[]),
        ("", &[("NO_PROXY", "a")], &[]),
    ] {
        let warned = warned(text, env);
        let same = warned.len() == expected.len()
            && warned
                .iter()
                .zip(expected)
                .all(|((key, what), (at, words))| key == at && what.contains(words));
        assert!(same, "{text} {env:?}: {warned:?}");
        assert!(!format!("{warned:?}").contains("hush"));
    }
}
