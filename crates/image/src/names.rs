//! Names that users give: checked here so that nothing odd reaches a file or a command line.

use std::io::Read;

use config::Mac;

use crate::error::Error;

/// `HOST_NAME_MAX` of Linux.
const LONGEST_HOST: usize = 64;
/// RFC 1123, section 2.1, with the label's limit of RFC 1034.
const LONGEST_LABEL: usize = 63;

/// Checks a host name after RFC 1123: labels of letters, digits and inner hyphens, with dots.
///
/// # Errors
///
/// Says which rule is broken.
pub fn check_hostname(name: &str) -> Result<(), Error> {
    let wrong = |why| Err(Error::Hostname { name: name.to_owned(), why });
    if name.is_empty() {
        return wrong("it is empty");
    }
    if name.len() > LONGEST_HOST {
        return wrong("it is longer than 64 letters");
    }
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return wrong("it would be taken for an address; at least one letter is needed");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return wrong("there is nothing before or after a dot");
        }
        if label.len() > LONGEST_LABEL {
            return wrong("a part of it is longer than 63 letters");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return wrong("only letters, digits, hyphens and dots are allowed");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong("a part of it begins or ends with a hyphen");
        }
    }
    Ok(())
}

/// Takes apart a list of package names separated by commas or blanks.
///
/// # Errors
///
/// Names the word that cannot be a package's name. The rule is Debian policy 5.6.1, and it also
/// keeps what apt would take for an option, a pattern or a file away from it.
pub fn packages(list: &str) -> Result<Vec<String>, Error> {
    let words = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words.map(package).collect()
}

fn package(word: &str) -> Result<String, Error> {
    let symbol = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let first = word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    // apt reads "name-" as "remove name" and "name+" as "install name".
    let verb = word.ends_with('-');
    if first && word.len() >= 2 && word.len() <= 128 && word.chars().all(symbol) && !verb {
        Ok(word.to_owned())
    } else {
        Err(Error::PackageName(word.to_owned()))
    }
}

/// The address of a network card.
///
/// # Errors
///
/// In the words of the configuration file's `mac=`.
pub fn mac(text: &str) -> Result<Mac, Error> {
    Mac::parse(text).map_err(|error| Error::Mac(error.to_string()))
}

/// An address in the range of Xen, 00:16:3e, as the configuration would get at random; fixed
/// here so that the guest keeps its lease from one start to the next.
///
/// # Errors
///
/// When the host gives no random bytes.
pub fn random_mac() -> Result<Mac, Error> {
    let [a, b, c] = random()?;
    Ok(Mac([0x00, 0x16, 0x3e, a & 0x7f, b, c]))
}

/// Letters that are not taken for others.
const PASSWORD_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// 16 letters of 5 bits: 80 bits, and easy to type.
///
/// # Errors
///
/// When the host gives no random bytes.
pub fn random_password() -> Result<String, Error> {
    let bytes: [u8; 16] = random()?;
    let letter = |byte: &u8| PASSWORD_LETTERS.get(usize::from(byte % 32)).copied().unwrap_or(b'a');
    Ok(bytes.iter().map(letter).map(char::from).collect())
}

/// Random bytes of the host.
///
/// # Errors
///
/// When `/dev/urandom` cannot be read.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let mut file = std::fs::File::open("/dev/urandom")
        .map_err(Error::at("open", std::path::Path::new("/dev/urandom")))?;
    file.read_exact(&mut bytes).map_err(Error::at("read", std::path::Path::new("/dev/urandom")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_after_rfc_1123() {
        let long = "a".repeat(63);
        for good in ["serv1", "a", "3com", "www-1.example.org", long.as_str()] {
            assert!(check_hostname(good).is_ok(), "{good}");
        }
        let (longer, longest) = ("a".repeat(64), "a.".repeat(40));
        for bad in [
            "", "-a", "a-", "a_b", "a b", "a..b", ".a", "a.", "ä", "10.0.0.1", "a/b", "a\nb", "12",
            &longer, &longest,
        ] {
            assert!(check_hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn package_lists() {
        assert_eq!(
            packages("lighttpd, vim-tiny nano,,").unwrap(),
            ["lighttpd", "vim-tiny", "nano"]
        );
        assert_eq!(packages("").unwrap(), [""; 0]);
        assert_eq!(packages("g++ libc6").unwrap(), ["g++", "libc6"]);
        for bad in
            ["-o", "--option", "nano-", "./a.deb", "?all", "x", "Nano", "a=1", "~n", "a/b", "a;b"]
        {
            assert!(matches!(packages(bad), Err(Error::PackageName(_))), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(mac("00:16:3E:1:2:3").unwrap().to_string(), "00:16:3e:01:02:03");
        for bad in ["", "00:16:3e", "01:16:3e:01:02:03", "zz:16:3e:01:02:03"] {
            assert!(matches!(mac(bad), Err(Error::Mac(_))), "{bad}");
        }
        let made = random_mac().unwrap();
        assert!(made.to_string().starts_with("00:16:3e:"));
        assert_ne!(random_mac().unwrap(), made);
    }

    #[test]
    fn passwords_differ_and_can_be_typed() {
        let password = random_password().unwrap();
        assert_eq!(password.len(), 16);
        assert!(password.bytes().all(|byte| PASSWORD_LETTERS.contains(&byte)));
        assert_ne!(random_password().unwrap(), password);
    }
}
