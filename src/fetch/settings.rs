//! How the hub is reached, as configured in the environment.
//!
//! Like the Python client, this honours `HF_ENDPOINT`, `HF_TOKEN` (else `HF_TOKEN_PATH`, else the token that
//! `hf auth login` stored in `HF_HOME`), `HF_HUB_OFFLINE`, `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, and uses files that are already in the cache in `HF_HOME`. `SSL_CERT_FILE` names certificates to
//! trust instead of the built-in ones.

use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, parse_pem};

use super::address::Address;
use super::patience::Patience;
use super::proxy::Proxies;
use super::secret::{Secret, without_login};
use crate::error::AtPath;
use crate::{Error, Result};

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the hub.
    pub endpoint: Address,
    /// Login for the endpoint, `user:password`; takes precedence over the token.
    pub login: Option<Secret>,
    /// Access token of the hub.
    pub token: Option<Secret>,
    /// The variable that forbids all requests, if set.
    pub offline: Option<&'static str>,
    /// The hub's local cache.
    pub cache: Option<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// Certificates to trust instead of the built-in ones.
    pub certificates: Option<Vec<Certificate<'static>>>,
    /// How long to keep trying.
    pub patience: Patience,
}

impl Settings {
    /// Reads the settings from environment variables; `get` looks one up.
    ///
    /// # Errors
    /// If a variable is invalid: not a URL, no certificates in the file, a token that does not fit into a
    /// header.
    pub fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let (endpoint, login) = Address::parse(&endpoint).ok_or_else(|| {
            let shown = without_login(endpoint.trim());
            Error::request(format!("HF_ENDPOINT is `{shown}`, not an http:// or https:// address"))
                .help("set it to the address of a hub, or unset it for https://huggingface.co")
        })?;
        let is_true =
            |value: &String| ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str());
        // The first variable that is set decides.
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| get(name).is_some());
        let offline = offline.filter(|name| get(name).as_ref().is_some_and(is_true));
        let home = get("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| Some(dirs::home_dir()?.join(".cache"))).map(|dir| dir.join("huggingface"))
        });
        let token = match get("HF_TOKEN") {
            Some(token) => token_of(&token, "HF_TOKEN", "set it again")?,
            None => {
                let file = get("HF_TOKEN_PATH").map(PathBuf::from);
                let file = file.or_else(|| Some(home.clone()?.join("token")));
                file.map_or(Ok(None), |file| token_in(&file))?
            }
        };
        let cache = get("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub")));
        Ok(Settings {
            endpoint,
            login: login.map(|login| Secret::new(decoded(&login))),
            token,
            offline,
            cache,
            proxies: Proxies::from_environment(&get)?,
            certificates: get("SSL_CERT_FILE").map(certificates).transpose()?,
            patience: Patience::default(),
        })
    }
}

/// Reads the token that `hf auth login` stored in `file`, if any.
fn token_in(file: &Path) -> Result<Option<Secret>> {
    // A file that cannot be read counts as no token: public repositories need none.
    let Ok(bytes) = std::fs::read(file) else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    token_of(
        &text,
        &file.display().to_string(),
        "run `hf auth login` to rewrite it, or set HF_TOKEN, which takes precedence",
    )
}

/// Cleans the token in `text`, which comes from `place`: strips white space, quotation marks and a byte-order
/// mark around it, as shells, editors and env files add them.
fn token_of(text: &str, place: &str, remedy: &str) -> Result<Option<Secret>> {
    let token = text.trim_start_matches('\u{feff}').trim();
    let token = ['"', '\'']
        .into_iter()
        .find_map(|mark| token.strip_prefix(mark)?.strip_suffix(mark))
        .unwrap_or(token);
    let token = token.trim();
    match token.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) {
        Some((place_in, found)) => {
            let found = match found {
                '\n' | '\r' => "a line break",
                ' ' | '\t' => "a space",
                _ => "a character outside ASCII",
            };
            let place_in = place_in + 1;
            Err(Error::request(format!(
                "the token in {place} has {found} at character {place_in}, which is not allowed"
            ))
            .help(remedy))
        }
        None => Ok(Some(Secret::new(token)).filter(|_| !token.is_empty())),
    }
}

/// Undoes percent-encoding, which a password in an address needs for `@`, `:` and `/`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn certificates(path: String) -> Result<Vec<Certificate<'static>>> {
    let pem =
        std::fs::read(&path).at(&path).map_err(|error| error.help("SSL_CERT_FILE points to this file"))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(
            Error::damaged(&path, "no PEM certificate found").help("SSL_CERT_FILE points to this file")
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_environment(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn settings_come_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();

        let plain = settings(&[("HF_HOME", home)]).unwrap();
        assert_eq!(plain.endpoint.to_string(), "https://huggingface.co");
        assert_eq!(plain.token, Some(Secret::new("hf_file")));
        assert_eq!(plain.cache, Some(folder.path().join("hub")));
        assert_eq!((plain.proxies, plain.offline), (Proxies::default(), None));

        let set = [("HF_ENDPOINT", "http://mirror:8080/"), ("HF_TOKEN", "hf_env"), ("HF_HUB_CACHE", "/c")];
        let set = settings(&[&set[..], &[("HF_HOME", home)]].concat()).unwrap();
        assert_eq!(set.endpoint.to_string(), "http://mirror:8080");
        assert_eq!(set.token, Some(Secret::new("hf_env")));
        assert_eq!(set.cache, Some("/c".into()));
    }

    #[test]
    fn empty_variables_count_as_unset() {
        let names = [
            "HF_ENDPOINT",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_OFFLINE",
            "HF_HUB_CACHE",
            "HTTPS_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
        ];
        let empty: Vec<(&str, &str)> = names.into_iter().map(|name| (name, "")).collect();
        let settings = settings(&[&empty[..], &[("HF_HOME", "/no/such")]].concat()).unwrap();
        assert_eq!(settings.endpoint.to_string(), "https://huggingface.co");
        assert_eq!((settings.token, settings.cache), (None, Some("/no/such/hub".into())));
        assert_eq!((settings.proxies, settings.offline), (Proxies::default(), None));
        assert!(settings.certificates.is_none());
    }

    #[test]
    fn offline_is_parsed_like_in_the_python_client() {
        let offline = |name: &str, value: &str| settings(&[(name, value)]).unwrap().offline;
        for yes in ["1", "ON", "yes", "True"] {
            assert_eq!(offline("HF_HUB_OFFLINE", yes), Some("HF_HUB_OFFLINE"), "{yes}");
        }
        assert_eq!(offline("TRANSFORMERS_OFFLINE", "1"), Some("TRANSFORMERS_OFFLINE"));
        for no in ["0", "false", "off", ""] {
            assert_eq!(offline("HF_HUB_OFFLINE", no), None, "{no}");
        }
        let both = [("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")];
        assert_eq!(settings(&both).unwrap().offline, None);
    }

    #[test]
    fn tokens_are_trimmed_and_invalid_ones_reported_but_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let path = file.to_str().unwrap();
        let of_file = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            settings(&[("HF_TOKEN_PATH", path)]).map(|settings| settings.token)
        };
        let of_variable = |token: &str| settings(&[("HF_TOKEN", token)]).map(|settings| settings.token);
        let right = Some(Secret::new("hf_secret"));
        for token in ["hf_secret\n", "hf_secret\r\n", " \"hf_secret\" ", "'hf_secret'", "\u{feff}hf_secret"] {
            assert_eq!(of_variable(token).unwrap(), right, "{token:?}");
            assert_eq!(of_file(token.as_bytes()).unwrap(), right, "{token:?}");
        }
        for none in ["\n", "\"\"", "\u{feff}"] {
            assert_eq!(of_file(none.as_bytes()).unwrap(), None, "{none:?}");
        }
        for (token, found) in [
            ("hf_se\ncret", "a line break at character 6"),
            ("hf_se cret", "a space at character 6"),
            ("hf_s\u{e9}cret", "a character outside ASCII at character 5"),
        ] {
            for (error, place) in [(of_variable(token), "HF_TOKEN"), (of_file(token.as_bytes()), path)] {
                let error = error.unwrap_err().to_string();
                assert!(error.contains(&format!("the token in {place} has {found}")), "{error}");
                assert!(!error.contains("cret"), "{error}");
            }
        }
        assert!(of_file(b"hf_\xffsecret").unwrap_err().to_string().contains("outside ASCII"));
    }

    #[test]
    fn passwords_of_the_endpoint_are_not_shown() {
        let set = settings(&[("HF_ENDPOINT", "http://user:ge%40heim@mirror:8080/a/")]).unwrap();
        assert_eq!(set.endpoint.to_string(), "http://mirror:8080/a");
        assert_eq!(set.login.as_ref().map(Secret::expose), Some("user:ge@heim"));
        assert!(!format!("{set:?}").contains("heim"), "{set:?}");
        let error = settings(&[("HF_ENDPOINT", "user:geheim@mirror")]).unwrap_err().to_string();
        assert!(error.contains("HF_ENDPOINT is `***@mirror`"), "{error}");
    }

    #[test]
    fn invalid_variables_are_refused() {
        let error = |variables: &[(&str, &str)]| settings(variables).unwrap_err().to_string();
        assert!(error(&[("HF_ENDPOINT", "hub")]).contains("HF_ENDPOINT is `hub`"));
        assert!(error(&[("HTTPS_PROXY", "ftp://x")]).contains("HTTPS_PROXY is `ftp://x`"));
        assert!(error(&[("SSL_CERT_FILE", "/no/such.pem")]).contains("SSL_CERT_FILE"));
    }
}
