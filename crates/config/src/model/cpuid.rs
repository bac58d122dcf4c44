//! What the domain sees of the processor (`cpuid`).
//!
//! xl's form is `host,FEATURE=0|1|x|k|s,...`; here a level may stand in place
//! of `host`. xm's form is `LEAF[,SUBLEAF]:REGISTER=BITS[,REGISTER=BITS]`, with
//! a letter for each of 32 bits, highest first.

use std::fmt;

use cpuid::{Choice, FEATURES, Feature, Level, Policy, Register, WORD_PLACES, feature};
use serde::{Deserialize, Serialize};

use super::spec::{Piece, pieces};
use crate::error::SpecError;
use crate::keys::nearest;

/// The word that accepts what programs lose where CPUID cannot fault.
const KERNEL_ONLY: &str = "kernel-only";
/// Keys of xl that are numbers, not features.
const NUMBERS: &[&str] = &[
    "family",
    "model",
    "stepping",
    "maxleaf",
    "maxhvleaf",
    "brandid",
    "clflush",
    "proccount",
    "localapicid",
    "procpkg",
    "apicidsize",
    "nc",
];

/// The processor that a domain sees: a level, changed feature by feature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuidMask {
    /// What it starts from.
    pub level: Level,
    /// Vector state that only programs know may get lost (`kernel-only`).
    pub kernel_only: bool,
    /// Changes, by the features' first names; later ones win.
    choices: Vec<(&'static str, Choice)>,
}

impl CpuidMask {
    /// Reads one string in either form.
    ///
    /// # Errors
    /// Points at what is none of it.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut mask = Self::default();
        mask.add(text)?;
        mask.check().map_err(|why| SpecError::new(0..text.len(), why))?;
        Ok(mask)
    }

    /// Adds what one string of a list says.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), SpecError> {
        if text.contains(':') { self.add_registers(text) } else { self.add_features(text) }
    }

    /// Does it say something that cannot be?
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.policy().contradiction() {
            Some((feature, needed)) => Err(format!(
                "`{}` is asked for, but `{}`, which it needs, is hidden",
                feature.name(),
                needed.name()
            )),
            None => Ok(()),
        }
    }

    /// What it means.
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::new(self.level);
        for (name, choice) in &self.choices {
            if let Some(feature) = feature(name) {
                policy.choose(feature, *choice);
            }
        }
        policy
    }

    fn add_features(&mut self, text: &str) -> Result<(), SpecError> {
        for (index, piece) in pieces(text).enumerate() {
            match piece.pair() {
                Some((name, value)) if index > 0 => {
                    let choice = choice(value.text).ok_or_else(|| {
                        value.error(format!("`{}` is no choice", value.text)).help(
                            "0 hides a feature, 1 demands it, x leaves it, k and s keep the host's",
                        )
                    })?;
                    let feature = named(name)?;
                    self.choose(feature, choice).map_err(|why| name.error(why))?;
                }
                None if piece.text == KERNEL_ONLY && index > 0 => self.kernel_only = true,
                _ if index == 0 => {
                    let found = level(piece)?;
                    if self.level != Level::Host && self.level != found {
                        return Err(piece.error(format!("A second level beside {}", self.level)));
                    }
                    self.level = found;
                }
                _ => {
                    let message = format!("`{}` is no feature with a value", piece.text);
                    return Err(piece.error(message).help("write FEATURE=0, as in host,avx512f=0"));
                }
            }
        }
        Ok(())
    }

    fn add_registers(&mut self, text: &str) -> Result<(), SpecError> {
        let at = text.find(':').unwrap_or(text.len());
        let bad = |message: String| SpecError::new(0..at, message);
        let mut numbers = pieces(text.get(..at).unwrap_or_default()).map(|p| number(p.text));
        let (leaf, sub) = match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(leaf)), None, None) => (leaf, 0),
            (Some(Some(leaf)), Some(Some(sub)), None) => (leaf, sub),
            _ => {
                return Err(bad("A leaf and, after a comma, a subleaf are expected".to_owned())
                    .help("write 1:ecx=… or 7,0:ebx=…"));
            }
        };
        let rest = text.get(at + 1..).unwrap_or_default();
        for piece in pieces(rest) {
            let added = self.add_register(leaf, sub, piece);
            added.map_err(|error| error.shifted(at + 1))?;
        }
        Ok(())
    }

    fn add_register(&mut self, leaf: u32, sub: u32, piece: Piece<'_>) -> Result<(), SpecError> {
        let (name, bits) = piece.pair().ok_or_else(|| {
            piece.error(format!("`{}` is no register with bits", piece.text)).help("write ecx=…")
        })?;
        let register = match name.text {
            "eax" => Register::Eax,
            "ebx" => Register::Ebx,
            "ecx" => Register::Ecx,
            "edx" => Register::Edx,
            other => return Err(name.error(format!("`{other}` is no register of CPUID"))),
        };
        let word = WORD_PLACES.iter().position(|place| *place == (leaf, sub, register));
        let word = word.ok_or_else(|| {
            let message = format!("{} of leaf {leaf:#x},{sub} holds no feature flags", name.text);
            name.error(message).help("flags can be changed, numbers of the processor cannot")
        })?;
        if bits.text.len() != 32 {
            let found = bits.text.chars().count();
            return Err(bits.error(format!("32 bits are expected, highest first, got {found}")));
        }
        for (index, letter) in bits.text.char_indices() {
            let at = bits.start + index..bits.start + index + letter.len_utf8();
            let choice = choice(letter.encode_utf8(&mut [0; 4])).ok_or_else(|| {
                SpecError::new(at.clone(), format!("`{letter}` is no choice for a bit"))
                    .help("write 0, 1, x, k or s for each")
            })?;
            let bit = 31 - index;
            let found = FEATURES.iter().find(|f| f.bit.word == word && f.bit.mask == 1 << bit);
            let done = match (found, choice) {
                (Some(feature), choice) => self.choose(feature, choice),
                // Guests see 0 there.
                (None, None | Some(Choice::Hide)) => Ok(()),
                (None, _) => Err(format!("bit {bit} is no feature that guests can have")),
            };
            done.map_err(|why| SpecError::new(at, why))?;
        }
        Ok(())
    }

    /// `None` leaves the feature as the level has it.
    fn choose(&mut self, feature: &'static Feature, choice: Option<Choice>) -> Result<(), String> {
        let name = feature.name();
        self.choices.retain(|(other, _)| *other != name);
        let Some(choice) = choice else { return Ok(()) };
        Policy::allows(feature, choice).map_err(|why| match choice {
            Choice::Hide => format!("`{name}` cannot be hidden: {why}"),
            _ => format!("Guests cannot have `{name}`: {why}"),
        })?;
        self.choices.push((name, choice));
        Ok(())
    }
}

/// `Some(None)` is `x`.
fn choice(text: &str) -> Option<Option<Choice>> {
    Some(match text {
        "0" => Some(Choice::Hide),
        "1" => Some(Choice::Demand),
        "k" | "s" => Some(Choice::AsHost),
        "x" => None,
        _ => return None,
    })
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

fn level(piece: Piece<'_>) -> Result<Level, SpecError> {
    Level::from_name(piece.text).ok_or_else(|| {
        let names = Level::ALL.map(Level::name);
        let error = piece.error(format!("`{}` is no level", piece.text));
        match nearest(piece.text, names) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!("begin with one of {}", names.join(", "))),
        }
    })
}

fn named(name: Piece<'_>) -> Result<&'static Feature, SpecError> {
    if let Some(found) = feature(name.text) {
        return Ok(found);
    }
    if NUMBERS.contains(&name.text) {
        let message = format!("`{}` is a number of the processor, not a feature", name.text);
        return Err(name.error(message).help("a level fixes family, model and stepping"));
    }
    let error = name.error(format!("`{}` is no known processor feature", name.text));
    let names = FEATURES.iter().flat_map(|f| f.names.iter().copied());
    Err(match nearest(name.text, names) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help("docs/cpuid.md lists them"),
    })
}

impl fmt::Display for CpuidMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        for (name, choice) in &self.choices {
            let letter = match choice {
                Choice::Hide => '0',
                Choice::Demand => '1',
                Choice::AsHost => 'k',
            };
            write!(f, ",{name}={letter}")?;
        }
        if self.kernel_only {
            write!(f, ",{KERNEL_ONLY}")?;
        }
        Ok(())
    }
}

impl From<CpuidMask> for String {
    fn from(mask: CpuidMask) -> Self {
        mask.to_string()
    }
}

impl TryFrom<String> for CpuidMask {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        CpuidMask::parse(text).unwrap().to_string()
    }

    #[test]
    fn masks_read_and_print() {
        for text in ["host", "x86-64-v2", "host,aes=0,avx2=0", "x86-64-v3,aes=1,kernel-only"] {
            assert_eq!(printed(text), text);
            assert_eq!(CpuidMask::parse(&printed(text)), CpuidMask::parse(text));
        }
        assert_eq!(
            printed(" host , SSE4.1=0, avx512vbmi=k,rdrand=x"),
            "host,sse4_1=0,avx512-vbmi=k"
        );
        assert_eq!(printed("host,aes=0,sha=0,aes=1"), "host,sha=0,aes=1");
        assert_eq!(printed("host,aes=0,aes=x"), "host");
        assert_eq!(printed("host,tm=0,vmx=0"), "host,tm=0,vmx=0");
    }

    #[test]
    fn registers_are_features() {
        let bits = |set: &[(usize, char)]| -> String {
            (0..32)
                .rev()
                .map(|bit| set.iter().find(|(b, _)| *b == bit).map_or('x', |(_, c)| *c))
                .collect()
        };
        let text = format!("1:ecx={},edx={}", bits(&[(25, '0'), (30, '1')]), bits(&[(31, '0')]));
        assert_eq!(printed(&text), "host,rdrand=1,aes=0,pbe=0");
        let text = format!("0x7,0x0:ebx={}", bits(&[(29, '0'), (2, '0')]));
        assert_eq!(printed(&text), "host,sha=0");
        let hide_everything = format!("7:ebx={}", "0".repeat(32));
        assert!(printed(&hide_everything).contains("avx2=0"));
        for bad in [
            format!("1:ecx={}", bits(&[(5, '1')])),
            format!("1:ecx={}", bits(&[(25, '2')])),
            format!("1:eax={}", bits(&[])),
            format!("1,0,0:ecx={}", bits(&[])),
            format!("one:ecx={}", bits(&[])),
            format!("1:erx={}", bits(&[])),
            format!("1:ecx={}", "x".repeat(31)),
            "1:ecx".to_owned(),
            "1:".to_owned(),
            format!("1:ecx={}", "é".repeat(16)),
            format!("7:edx={}", bits(&[(9, '1')])),
        ] {
            assert!(CpuidMask::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mistakes_have_places() {
        let error = CpuidMask::parse("host,axv2=0").unwrap_err();
        assert_eq!((error.start, error.end), (5, 9));
        assert_eq!(error.help.as_deref(), Some("did you mean `avx2`?"));
        let error = CpuidMask::parse("x86-64-v5").unwrap_err();
        assert_eq!(error.help.as_deref(), Some("did you mean `x86-64-v2`?"));
        for bad in [
            "",
            "host,",
            "avx2=0",
            "host,avx2",
            "host,avx2=2",
            "host,lm=0",
            "host,vmx=1",
            "host,family=6",
            "kernel-only",
            "host,host",
            "host,avx512f=1,avx2=0",
        ] {
            assert!(CpuidMask::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn policies_follow() {
        let policy = CpuidMask::parse("x86-64-v2,aes=1,popcnt=0").unwrap().policy();
        let has = |name: &str, words: &cpuid::Words| feature(name).unwrap().bit.of(words);
        assert!(has("aes", &policy.demanded) && !has("aes", &policy.hidden));
        assert!(has("popcnt", &policy.hidden) && !has("popcnt", &policy.demanded));
        assert!(has("avx", &policy.hidden) && has("sse4_2", &policy.demanded));
        assert_eq!(CpuidMask::default().policy(), Policy::default());
        let mut mask = CpuidMask::default();
        assert!(mask.add("x86-64-v2,aes=1").is_ok() && mask.add("x86-64-v2,sha=0").is_ok());
        assert!(mask.add("host").is_err());
    }
}
