//! The policy as a pure function of a host and a configuration.

use cpuid::{
    Choice, FEATURES, Feature, Host, Kind, Level, OFFERED_STATE, Policy, Register, Regs, View,
    WORD_PLACES, feature,
};
use proptest::prelude::*;

/// A host that is made up.
#[derive(Clone, Debug)]
struct Made {
    /// Feature words by place.
    words: [u32; WORD_PLACES.len()],
    xcr0: u64,
    vendor: &'static [u8; 12],
    /// What every other leaf holds.
    noise: u32,
}

impl Host for Made {
    fn leaf(&self, leaf: u32, sub: u32) -> Regs {
        let word = |register| {
            let at = WORD_PLACES.iter().position(|place| *place == (leaf, sub, register));
            at.map_or(self.noise, |at| self.words[at])
        };
        let letters = |at: usize| u32::from_le_bytes(self.vendor[at..at + 4].try_into().unwrap());
        match (leaf, sub) {
            (0, _) => Regs { eax: 0x1f, ebx: letters(0), ecx: letters(8), edx: letters(4) },
            (0x8000_0000, _) => Regs { eax: 0x8000_0021, ..Regs::default() },
            // Sizes and offsets as Intel's and AMD's later processors have them.
            (0xd, 2) => Regs { eax: 256, ebx: 576, ecx: self.noise, edx: 0 },
            (0xd, 5) => Regs { eax: 64, ebx: 832, ecx: self.noise, edx: 0 },
            (0xd, 6) => Regs { eax: 512, ebx: 896, ecx: self.noise, edx: 0 },
            (0xd, 7) => Regs { eax: 1024, ebx: 1408, ecx: self.noise, edx: 0 },
            (0xd, 9) => Regs { eax: 8, ebx: 2432, ecx: self.noise, edx: 0 },
            (0xd, 17) => Regs { eax: 64, ebx: 2496, ..Regs::default() },
            (0xd, 18) => Regs { eax: 8192, ebx: 2560, ..Regs::default() },
            (0xd, 2..) => Regs::default(),
            _ => Regs {
                eax: word(Register::Eax),
                ebx: word(Register::Ebx),
                ecx: word(Register::Ecx),
                edx: word(Register::Edx),
            },
        }
    }

    fn xcr0(&self) -> u64 {
        self.xcr0
    }
}

const INTEL: &[u8; 12] = b"GenuineIntel";
const AMD: &[u8; 12] = b"AuthenticAMD";

/// A host that has everything.
fn all() -> Made {
    Made { words: [u32::MAX; WORD_PLACES.len()], xcr0: 0x6_02e7, vendor: INTEL, noise: 0x5a5a_a5a5 }
}

fn without(mut host: Made, names: &[&str]) -> Made {
    for name in names {
        let bit = named(name).bit;
        host.words[bit.word] &= !bit.mask;
    }
    host
}

fn named(name: &str) -> &'static Feature {
    feature(name).unwrap_or_else(|| panic!("{name}"))
}

fn shown(view: &View, name: &str) -> bool {
    named(name).bit.of(view.words())
}

fn policy(level: Level, choices: &[(&str, Choice)]) -> Policy {
    let mut policy = Policy::new(level);
    for (name, choice) in choices {
        policy.choose(named(name), *choice);
    }
    policy
}

#[test]
fn names_and_places_are_unique() {
    for (index, one) in FEATURES.iter().enumerate() {
        assert!(!one.names.is_empty());
        for other in &FEATURES[..index] {
            assert_ne!(one.bit, other.bit, "{} {}", one.name(), other.name());
        }
        for name in one.names {
            assert_eq!(named(name).bit, one.bit, "{name} is the name of two features");
            assert_eq!(*name, name.to_lowercase());
        }
        if let Some(needed) = one.needs {
            assert!(needed.feature().is_some_and(Feature::is_offered), "{}", one.name());
        }
    }
    for (a, b) in [("SSE4.1", "sse4_1"), ("avx512vbmi", "avx512-vbmi"), ("sse4-2", "sse42")] {
        assert_eq!(named(a).bit, named(b).bit);
    }
    assert!(feature("sse5").is_none() && feature("").is_none());
}

#[test]
fn levels_grow() {
    let [_, v2, v3, v4] = Level::ALL;
    for f in FEATURES {
        assert!(!f.is_of(Level::Host));
        assert!(!f.is_of(v2) || f.is_of(v3), "{}", f.name());
        assert!(!f.is_of(v3) || f.is_of(v4), "{}", f.name());
        assert!(!f.is_of(v4) || f.is_offered(), "{}", f.name());
        if let Some(needed) = f.needs.and_then(|bit| bit.feature()) {
            for level in Level::ALL {
                assert!(!f.is_of(level) || needed.is_of(level), "{} at {level}", f.name());
            }
        }
    }
    assert!(named("sse4_2").is_of(v2) && !named("avx").is_of(v2));
    assert!(named("avx2").is_of(v3) && !named("avx512f").is_of(v3));
    assert!(named("avx512vl").is_of(v4) && !named("aes").is_of(v4));
    for level in Level::ALL {
        assert_eq!(Level::from_name(level.name()), Some(level));
        assert_eq!(Level::from_number(level as u32), level);
    }
    assert_eq!(Level::from_number(77), Level::Host);
}

/// What is offered today; a change here is a change of what every guest sees.
#[test]
fn offered_words() {
    let view = View::new(&all(), &Policy::default());
    let words = [
        0xfed8_3203,
        0x0789_8375,
        0xf1af_0328,
        0x0040_5f42,
        0x0000_011c,
        0,
        1,
        0x1e1,
        0x2810_0800,
        0x100,
        0,
    ];
    for (index, word) in words.into_iter().enumerate() {
        assert_eq!(view.words()[index], word, "word {index}: {:#x}", view.words()[index]);
    }
}

#[test]
fn masks_take_dependents_and_state_along() {
    let host = all();
    let view = View::new(&host, &policy(Level::Host, &[("avx512f", Choice::Hide)]));
    assert!(!shown(&view, "avx512vl") && !shown(&view, "avx512-vnni") && shown(&view, "avx2"));
    assert_eq!((view.xcr0(), view.unknown_state(&host)), (7, 0xe0));
    let leaf = view.leaf(&host, 0xd, 0);
    assert_eq!((leaf.eax, leaf.ebx, leaf.ecx, leaf.edx), (7, 832, 832, 0));
    assert_eq!(view.leaf(&host, 0xd, 5), Regs::default());

    let view = View::new(&host, &policy(Level::Host, &[("avx", Choice::Hide)]));
    for gone in ["avx2", "fma", "f16c", "vaes", "avx512f", "avx512bw"] {
        assert!(!shown(&view, gone), "{gone}");
    }
    assert!(shown(&view, "xsave") && shown(&view, "sse4_2") && view.xcr0() == 3);
    assert_eq!(view.leaf(&host, 0xd, 0).ebx, 576);

    let view = View::new(&host, &policy(Level::Host, &[("xsave", Choice::Hide)]));
    assert!(!shown(&view, "osxsave") && !shown(&view, "avx") && !shown(&view, "xsaveopt"));
    assert_eq!((view.leaf(&host, 0xd, 0), view.xcr0()), (Regs::default(), 3));
    assert!(!view.has_xsave());
}

#[test]
fn hosts_without_the_state_offer_no_feature_of_it() {
    let host = Made { xcr0: 7, ..all() };
    let view = View::new(&host, &Policy::default());
    assert!(shown(&view, "avx2") && !shown(&view, "avx512f") && !shown(&view, "avx512-bitalg"));
    assert_eq!((view.xcr0(), view.unknown_state(&host)), (7, 0));
    let view = View::new(&Made { xcr0: 3, ..all() }, &Policy::default());
    assert!(!shown(&view, "avx") && !shown(&view, "fma") && shown(&view, "xsave"));
}

#[test]
fn what_a_host_lacks_is_named() {
    let host = without(all(), &["avx512bw", "movbe"]);
    let missing = |level, choices: &[(&str, Choice)]| {
        policy(level, choices).missing(&host).map(Feature::name).collect::<Vec<_>>()
    };
    assert!(missing(Level::Host, &[]).is_empty());
    assert!(missing(Level::V2, &[]).is_empty());
    assert_eq!(missing(Level::V3, &[]), ["movbe"]);
    assert_eq!(missing(Level::V4, &[]), ["movbe", "avx512bw"]);
    assert!(missing(Level::V3, &[("movbe", Choice::Hide)]).is_empty());
    assert_eq!(missing(Level::Host, &[("avx512bw", Choice::Demand)]), ["avx512bw"]);
    assert!(missing(Level::V2, &[("avx512bw", Choice::AsHost)]).is_empty());
}

#[test]
fn demands_bring_what_they_need() {
    let policy = policy(Level::V2, &[("vaes", Choice::Demand)]);
    assert_eq!(policy.contradiction().map(|(f, _)| f.name()), None);
    let view = View::new(&all(), &policy);
    assert!(shown(&view, "vaes") && shown(&view, "avx") && shown(&view, "osxsave"));
    assert!(!shown(&view, "avx2") && view.xcr0() == 7);
    let mut policy = policy;
    policy.choose(named("avx"), Choice::Hide);
    let names = policy.contradiction().map(|(a, b)| (a.name(), b.name()));
    assert_eq!(names, Some(("vaes", "avx")));
}

#[test]
fn choices_that_cannot_be_made() {
    assert!(Policy::allows(named("lm"), Choice::Hide).is_err());
    assert!(Policy::allows(named("lm"), Choice::Demand).is_ok());
    assert!(Policy::allows(named("vmx"), Choice::Demand).is_err());
    assert!(Policy::allows(named("vmx"), Choice::Hide).is_ok());
    let mut policy = Policy::default();
    policy.choose(named("sse2"), Choice::Hide);
    policy.choose(named("pku"), Choice::Demand);
    assert_eq!(policy, Policy::default());
}

/// Two hosts of a vendor that both have a level look the same on it, but for
/// what the hardware decides: where XSAVE puts components.
#[test]
fn a_level_looks_the_same_on_every_host() {
    for vendor in [INTEL, AMD] {
        for level in [Level::V2, Level::V3, Level::V4] {
            let rich = Made { vendor, ..all() };
            let few = ["aes", "sha", "erms", "fsrm", "invtsc", "rdrand", "avx512-vnni", "xsaveopt"];
            let poor = Made { noise: 7, vendor, ..without(all(), &few) };
            let (a, b) =
                (View::new(&rich, &Policy::new(level)), View::new(&poor, &Policy::new(level)));
            assert_eq!(Policy::new(level).missing(&poor).count(), 0);
            for leaf in (0..0x30).chain(0x4000_0000..0x4000_0008).chain(0x8000_0000..0x8000_0030) {
                for sub in 0..20 {
                    assert_eq!(
                        a.leaf(&rich, leaf, sub),
                        b.leaf(&poor, leaf, sub),
                        "{leaf:#x},{sub}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_level_has_a_name() {
    let (host, view) = (all(), View::new(&all(), &Policy::new(Level::V3)));
    let name: Vec<u8> = (0x8000_0002..=0x8000_0004u32)
        .map(|leaf| view.leaf(&host, leaf, 0))
        .flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx])
        .flat_map(u32::to_le_bytes)
        .collect();
    assert_eq!(std::str::from_utf8(&name).unwrap().trim_end_matches('\0'), "x86-64-v3 (Xenolith)");
}

fn hosts() -> impl Strategy<Value = Made> {
    let words = proptest::array::uniform11(prop_oneof![Just(u32::MAX), any::<u32>()]);
    let state = prop_oneof![Just(0), Just(3), Just(7), Just(0xe7), Just(0x6_02e7), any::<u64>()];
    (words, state, prop_oneof![Just(INTEL), Just(AMD), Just(b"HygonGenuine")], any::<u32>())
        .prop_map(|(words, xcr0, vendor, noise)| Made { words, xcr0, vendor, noise })
}

fn policies() -> impl Strategy<Value = Policy> {
    let choice = prop_oneof![Just(Choice::Hide), Just(Choice::Demand), Just(Choice::AsHost)];
    let choices = proptest::collection::vec((0..FEATURES.len(), choice), 0..12);
    (0..Level::ALL.len(), choices).prop_map(|(level, choices)| {
        let mut policy = Policy::new(Level::ALL[level]);
        for (index, choice) in choices {
            policy.choose(&FEATURES[index], choice);
        }
        policy
    })
}

proptest! {
    #[test]
    fn nothing_is_offered_that_the_host_lacks(host in hosts(), policy in policies()) {
        let view = View::new(&host, &policy);
        for f in FEATURES.iter().filter(|f| f.bit.of(view.words())) {
            prop_assert!(f.bit.of(&host.words) || f.name() == "hypervisor", "{}", f.name());
            prop_assert!(!matches!(f.kind, Kind::Hidden(_)), "{}", f.name());
            prop_assert!(!f.bit.of(&policy.hidden), "{}", f.name());
            prop_assert!(f.needs.is_none_or(|bit| bit.of(view.words())), "{}", f.name());
        }
        let known = FEATURES.iter().fold([0; WORD_PLACES.len()], |mut all, f| {
            all[f.bit.word] |= f.bit.mask;
            all
        });
        for (word, known) in view.words().iter().zip(known) {
            prop_assert_eq!(word & !known, 0);
        }
    }

    #[test]
    fn leaves_show_the_words(host in hosts(), policy in policies()) {
        let view = View::new(&host, &policy);
        for ((leaf, sub, register), word) in WORD_PLACES.into_iter().zip(view.words()) {
            let seen = view.leaf(&host, leaf, sub).get(register);
            prop_assert!(seen == *word || *word == 0 || !view.has_xsave() && leaf == 0xd, "{leaf:#x}");
        }
    }

    #[test]
    fn sizes_agree_with_the_state(host in hosts(), policy in policies()) {
        let view = View::new(&host, &policy);
        let xcr0 = view.xcr0();
        // What WRMSR to XCR0 would take (SDM vol. 1, 13.3), within what the host has.
        prop_assert!(xcr0 & 3 == 3 && xcr0 & !OFFERED_STATE == 0);
        prop_assert!(matches!(xcr0 & 0xe0, 0 | 0xe0) && (xcr0 & 0xe0 == 0 || xcr0 & 4 != 0));
        prop_assert_eq!(xcr0 & !3 & !host.xcr0, 0);
        prop_assert_eq!(xcr0 & 4 != 0, shown(&view, "avx"));
        prop_assert_eq!(xcr0 & 0xe0 != 0, shown(&view, "avx512f"));
        let main = view.leaf(&host, 0xd, 0);
        if !view.has_xsave() {
            prop_assert_eq!(main, Regs::default());
            return Ok(());
        }
        prop_assert_eq!(u64::from(main.eax) | u64::from(main.edx) << 32, xcr0);
        prop_assert_eq!(main.ebx, main.ecx);
        let mut end = 576;
        for sub in 2..63 {
            let c = view.leaf(&host, 0xd, sub);
            prop_assert_eq!(c.eax != 0, xcr0 >> sub & 1 != 0, "component {}", sub);
            end = end.max(c.eax + c.ebx);
        }
        prop_assert_eq!(main.ebx, end);
    }

    #[test]
    fn missing_is_what_was_demanded_and_is_not_seen(host in hosts(), policy in policies()) {
        let view = View::new(&host, &policy);
        let missing: Vec<_> = policy.missing(&host).map(Feature::name).collect();
        for f in FEATURES {
            let lacks = f.bit.of(&policy.demanded) && !f.bit.of(view.words());
            prop_assert_eq!(lacks, missing.contains(&f.name()), "{}", f.name());
        }
    }
}
