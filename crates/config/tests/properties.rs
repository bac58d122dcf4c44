//! Properties that hold for every configuration and every text.

use config::{Affinity, CpuList, Disk, DomainConfig, Vif, parse_str};
use proptest::prelude::*;

fn plain() -> DomainConfig {
    parse_str("base", "kernel = '/k'", &[]).unwrap().config
}

/// Text that may stand in a file: no control characters, not empty.
fn words() -> impl Strategy<Value = String> {
    "[ -~āü]{0,30}[!-~]"
}

fn disks() -> impl Strategy<Value = Disk> {
    let source = prop_oneof![
        Just("phy:"),
        Just("file:"),
        Just("tap:aio:"),
        Just("tap:qcow2:"),
        Just("nbd:"),
        Just("raw:")
    ];
    let mode = prop_oneof![Just("r"), Just("w"), Just("w!")];
    let kind = prop_oneof![Just(""), Just(":cdrom"), Just(":disk"), Just(":tap")];
    (source, "[a-zA-Z0-9/_.=:-]{1,20}", 0u32..1000, mode, kind, any::<bool>()).prop_map(
        |(source, path, number, mode, kind, discard)| {
            let switch = if discard { ",discard,trusted" } else { "" };
            let spec = format!("{source}{path},{number}{kind},{mode}{switch}");
            Disk::parse(&spec).unwrap_or_else(|error| panic!("{spec}: {error}"))
        },
    )
}

fn vifs() -> impl Strategy<Value = Vif> {
    ("[a-z0-9]{0,15}", any::<[u8; 5]>(), 1u64..1 << 40, any::<bool>()).prop_map(
        |(bridge, mac, rate, udp)| {
            let [a, b, c, d, e] = mac;
            let end = if udp { "/udp" } else { "" };
            let spec = format!(
                "bridge={bridge}, mac=02:{a:x}:{b:x}:{c:x}:{d:x}:{e:x}, rate={rate}B/s, \
                 ports=22:22 80:8080{end}"
            );
            Vif::parse(&spec).unwrap_or_else(|error| panic!("{spec}: {error}"))
        },
    )
}

fn configs() -> impl Strategy<Value = DomainConfig> {
    let boot = (words(), proptest::option::of(words()), proptest::option::of(words()));
    let sizes = (16u64..100_000, 0u64..1000, 1u32..=64, 0u32..=64, 1u32..=65535, 0u32..=100);
    let devices = (proptest::option::of(disks()), proptest::option::of(vifs()));
    ("[A-Za-z0-9_+:][A-Za-z0-9_.:+-]{0,20}", boot, sizes, devices, any::<bool>()).prop_map(
        |(name, (kernel, root, extra), sizes, (disk, vif), pinned)| {
            let (memory, more, vcpus, more_vcpus, weight, cap) = sizes;
            let mut config = plain();
            config.general.name = name;
            config.boot.kernel = Some(kernel);
            config.boot.root = root.filter(|root| !root.starts_with("root="));
            config.boot.extra = extra;
            config.memory.initial = memory;
            config.memory.maximum = memory + more;
            config.cpus.online = vcpus;
            config.cpus.maximum = vcpus + more_vcpus;
            config.cpus.scheduling.weight = weight;
            config.cpus.scheduling.cap = cap;
            let list = CpuList::parse("0-3,^2,node:1").unwrap();
            config.cpus.affinity = pinned.then_some(Affinity::PerVcpu(vec![list]));
            config.devices.disks.extend(disk);
            config.devices.vifs.extend(vif);
            config
        },
    )
}

/// Pieces of the language, so that random texts get past the lexer.
fn scraps() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "memory",
            "disk",
            "vif",
            "name",
            "kernel",
            "vcpus",
            "x",
            "=",
            "+=",
            "==",
            "[",
            "]",
            "(",
            ")",
            "{",
            "}",
            ",",
            ":",
            ";",
            "%",
            "+",
            "-",
            "*",
            "/",
            "\n",
            "\n    ",
            "if ",
            "elif ",
            "else",
            " and ",
            " not ",
            " in ",
            "1",
            "0x7fffffffffffffff",
            "2.5",
            "1e308",
            "'a'",
            "\"%s%d%5x\"",
            "'''",
            "\\",
            "\\\n",
            "#",
            "None",
            "str(",
            "int(",
            "len(",
            "[0]",
            "'bridge=b,mac=1:2'",
            "'file:/x,xvda,w'",
            "'%(a)s'",
            "{'a': 1}",
            "\t",
            "\r\n",
            "“",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,4}",
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(config in configs()) {
        let text = config.to_xm();
        match parse_str("printed", &text, &[]) {
            Ok(loaded) => prop_assert_eq!(&loaded.config, &config),
            Err(error) => prop_assert!(false, "{error}\n{text}"),
        }
        let json = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(serde_json::from_str::<DomainConfig>(&json).unwrap(), config);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = parse_str("random", &text, &[]) {
            let shown = error.to_string();
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
        }
    }

    #[test]
    fn random_scraps_never_panic(text in scraps()) {
        match parse_str("scraps", &text, &[]) {
            Ok(loaded) => prop_assert!(loaded.config.validate().is_ok(), "{}", loaded.config.to_xm()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn random_specifications_never_panic(spec in "[ -~ā]{0,40}") {
        if let Ok(disk) = Disk::parse(&spec) {
            prop_assert_eq!(Disk::parse(&disk.to_string()), Ok(disk));
        }
        if let Ok(vif) = Vif::parse(&spec) {
            prop_assert_eq!(Vif::parse(&vif.to_string()), Ok(vif));
        }
    }
}
