//! What a configuration takes away, or insists on.

use crate::{Bit, Feature, Host, Kind, Level, View, WORDS, Words, features::FEATURES};

/// What a configuration says about a feature; the letters are libxl's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// `0`: hide it.
    Hide,
    /// `1`: the guest must have it.
    Demand,
    /// `k` or `s`: as the host has it, whatever the level says.
    AsHost,
}

/// From the features that guests may have to those that one domain has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where it starts from.
    pub level: Level,
    /// Flags taken away.
    pub hidden: Words,
    /// Flags that the host must have.
    pub demanded: Words,
}

impl Policy {
    /// A level as it is.
    pub fn new(level: Level) -> Policy {
        let mut policy = Policy { level, hidden: [0; WORDS], demanded: [0; WORDS] };
        for feature in FEATURES.iter().filter(|_| level != Level::Host) {
            if feature.is_of(level) {
                policy.demanded[feature.bit.word] |= feature.bit.mask;
            } else {
                policy.hidden[feature.bit.word] |= feature.bit.mask;
            }
        }
        policy
    }

    /// Only what the monitor is told: without demands.
    pub fn from_words(level: u32, hidden: Words) -> Policy {
        Policy { level: Level::from_number(level), hidden, demanded: [0; WORDS] }
    }

    /// Makes a choice; later ones win. Those that cannot be made change nothing
    /// ([`Policy::allows`]).
    pub fn choose(&mut self, feature: &Feature, choice: Choice) {
        if Policy::allows(feature, choice).is_err() {
            return;
        }
        let bit = feature.bit;
        let (hide, demand) = match choice {
            Choice::Hide => (bit.mask, 0),
            Choice::Demand => (0, bit.mask),
            Choice::AsHost => (0, 0),
        };
        self.hidden[bit.word] = self.hidden[bit.word] & !bit.mask | hide;
        self.demanded[bit.word] = self.demanded[bit.word] & !bit.mask | demand;
        if choice != Choice::Hide
            && let Some(needed) = feature.needs.and_then(Bit::feature)
        {
            // Chains of needs are short.
            self.choose(needed, choice);
        }
    }

    /// A demanded feature, and one that it needs and that is hidden.
    pub fn contradiction(&self) -> Option<(&'static Feature, &'static Feature)> {
        let demanded = FEATURES.iter().filter(|f| f.bit.of(&self.demanded));
        let mut pairs = demanded.filter_map(|f| Some((f, f.needs?.feature()?)));
        pairs.find(|(_, needed)| needed.bit.of(&self.hidden))
    }

    /// Can the choice be made on any host?
    ///
    /// # Errors
    /// Why it cannot.
    pub fn allows(feature: &Feature, choice: Choice) -> Result<(), &'static str> {
        match (feature.kind, choice) {
            (Kind::Needed, Choice::Hide) => Err("no guest comes up without it"),
            (Kind::Hidden(why), Choice::Demand | Choice::AsHost) => Err(why),
            _ => Ok(()),
        }
    }

    /// Features that were demanded and that guests of this host do not get.
    pub fn missing<H: Host>(&self, host: &H) -> impl Iterator<Item = &'static Feature> + use<H> {
        let view = View::new(host, self);
        let demanded = self.demanded;
        FEATURES.iter().filter(move |f| f.bit.of(&demanded) && !f.bit.of(view.words()))
    }
}
