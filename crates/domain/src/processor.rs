//! What a domain sees of this host's processor, and whether it can.

use crate::sys::{ThisHost, can_fault_on_cpuid};
use config::CpuidMask;
use control::{ErrorCode, Failure};
use cpuid::{Feature, Host, Level, Policy, View};

/// The policy that a configuration asks for.
///
/// # Errors
/// When this host lacks what is asked for, or cannot hide what is to be hidden.
pub fn policy(mask: &CpuidMask) -> Result<Policy, Failure> {
    check(mask, &ThisHost, can_fault_on_cpuid())
}

/// A line for the log: what the guest sees.
pub fn describe(mask: &CpuidMask) -> String {
    let programs = if can_fault_on_cpuid() { "programs too" } else { "programs: the host's" };
    format!("the guest's kernel sees the processor as {mask} ({programs})")
}

fn check(mask: &CpuidMask, host: &impl Host, faults: bool) -> Result<Policy, Failure> {
    let policy = mask.policy();
    let missing: Vec<&str> = policy.missing(host).map(Feature::name).collect();
    if !missing.is_empty() {
        let message = format!(
            "This host's processor lacks {}, which cpuid = \"{mask}\" asks for",
            missing.join(", ")
        );
        let failure = Failure::new(ErrorCode::Host, message);
        return Err(match best_level(host) {
            Some(level) => failure.with_hint(format!("Its best level is {level}.")),
            None => failure,
        });
    }
    let lost = View::new(host, &policy).unknown_state(host);
    if lost != 0 && !faults && !mask.kernel_only {
        let what = if lost & 4 != 0 { "AVX" } else { "AVX-512" };
        let message = format!(
            "cpuid = \"{mask}\" hides {what} from the guest's kernel, but this host cannot hide \
             it from the guest's programs: what they keep in its registers would be lost"
        );
        let hint = format!(
            "This host's CPUID cannot be made to fault. Leave {what} visible, or add \
             'kernel-only' if no program of the guest uses it."
        );
        return Err(Failure::new(ErrorCode::Host, message).with_hint(hint));
    }
    Ok(policy)
}

fn best_level(host: &impl Host) -> Option<Level> {
    let levels = Level::ALL.into_iter().filter(|level| *level != Level::Host);
    levels.filter(|level| Policy::new(*level).missing(host).next().is_none()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpuid::{FEATURES, Register, Regs, feature};

    /// A host with all features but some, and with that state.
    struct Made(&'static [&'static str], u64);

    impl Host for Made {
        fn leaf(&self, leaf: u32, sub: u32) -> Regs {
            let word = |register| {
                let has = |f: &&Feature| {
                    cpuid::WORD_PLACES[f.bit.word] == (leaf, sub, register)
                        && !self.0.iter().any(|name| feature(name).unwrap().bit == f.bit)
                };
                FEATURES.iter().filter(has).fold(0, |all, f| all | f.bit.mask)
            };
            Regs {
                eax: word(Register::Eax),
                ebx: word(Register::Ebx),
                ecx: word(Register::Ecx),
                edx: word(Register::Edx),
            }
        }

        fn xcr0(&self) -> u64 {
            self.1
        }
    }

    fn outcome(text: &str, host: &Made, faults: bool) -> Result<Policy, String> {
        let mask = CpuidMask::parse(text).unwrap();
        check(&mask, host, faults).map_err(|failure| failure.to_string())
    }

    #[test]
    fn levels_that_a_host_lacks_are_refused_by_name() {
        let old = Made(&["avx512vl", "avx512bw", "movbe"], 7);
        let error = outcome("x86-64-v4", &old, true).unwrap_err();
        for word in ["movbe", "avx512f", "avx512bw", "x86-64-v4"] {
            assert!(error.contains(word), "{error}");
        }
        assert!(outcome("x86-64-v3", &old, true).is_err());
        assert!(outcome("x86-64-v2", &old, true).is_ok());
        assert!(outcome("host,movbe=1", &old, true).is_err());
        assert!(outcome("host", &old, false).is_ok());
        assert_eq!(best_level(&old), Some(Level::V2));
        assert_eq!(best_level(&Made(&[], 0xe7)), Some(Level::V4));
        assert_eq!(best_level(&Made(&["popcnt"], 0xe7)), None);
    }

    #[test]
    fn state_that_programs_would_lose_is_kept() {
        let wide = Made(&[], 0x2e7);
        for (text, state) in
            [("x86-64-v3", "AVX-512"), ("x86-64-v2", "AVX"), ("host,xsave=0", "AVX")]
        {
            let error = outcome(text, &wide, false).unwrap_err();
            assert!(error.contains(&format!("hides {state} from")), "{error}");
            assert!(outcome(text, &wide, true).is_ok());
            assert!(outcome(&format!("{text},kernel-only"), &wide, false).is_ok());
        }
        let narrow = Made(&[], 7);
        assert!(outcome("x86-64-v3", &narrow, false).is_ok());
        assert!(outcome("x86-64-v4", &wide, false).is_ok());
        assert!(outcome("host,aes=0,avx2=0", &wide, false).is_err());
        assert!(outcome("host,aes=0", &wide, false).is_ok());
    }

    #[test]
    fn this_host_offers_what_it_has() {
        assert_eq!(policy(&CpuidMask::default()).unwrap(), Policy::default());
    }
}
