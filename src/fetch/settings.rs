//! How the hub is reached, as the environment asks for it.
//!
//! As the Python client does, it honours `HF_ENDPOINT`, `HF_TOKEN` (else `HF_TOKEN_PATH`, else the token
//! that `hf auth login` left in `HF_HOME`), `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, and
//! takes files from the cache in `HF_HOME` that are there already. `SSL_CERT_FILE` names certificates to
//! trust instead of the built-in ones.

use std::path::PathBuf;

use ureq::Proxy;
use ureq::tls::{Certificate, PemItem, parse_pem};

use super::patience::Patience;
use crate::error::AtPath;
use crate::{Error, Result};

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Without a slash at the end.
    pub endpoint: String,
    pub token: Option<String>,
    /// The hub's own cache on this machine.
    pub cache: Option<PathBuf>,
    pub proxy: Option<Proxy>,
    /// Certificates to trust instead of the built-in ones.
    pub certificates: Option<Vec<Certificate<'static>>>,
    pub patience: Patience,
}

impl Settings {
    /// The settings that environment variables ask for; `get` looks one up.
    ///
    /// # Errors
    /// Where one of them cannot be: not a URL, no certificates in the file.
    pub fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::request(format!(
                "HF_ENDPOINT is `{endpoint}`, no http:// or https:// address"
            )));
        }
        let home = get("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = get("XDG_CACHE_HOME").map(PathBuf::from);
            cache.or_else(|| Some(dirs::home_dir()?.join(".cache"))).map(|dir| dir.join("huggingface"))
        });
        let token = get("HF_TOKEN").or_else(|| {
            let file =
                get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home.clone()?.join("token")))?;
            std::fs::read_to_string(file).ok()
        });
        let cache = get("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home?.join("hub")));
        Ok(Settings {
            proxy: proxy(&endpoint, &get)?,
            endpoint,
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache,
            certificates: get("SSL_CERT_FILE").map(certificates).transpose()?,
            patience: Patience::default(),
        })
    }
}

/// The proxy on the way to `endpoint`.
fn proxy(endpoint: &str, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Proxy>> {
    let own = if endpoint.starts_with("https:") {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let either = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, get(name)?)));
    let Some((name, url)) = either(own).or_else(|| either(["ALL_PROXY", "all_proxy"])) else {
        return Ok(None);
    };
    let wrong = |_| Error::request(format!("{name} is `{url}`, which names no proxy"));
    let proxy = Proxy::new(&url).map_err(wrong)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(user) = proxy.username() {
        builder = builder.username(user);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    let (_, without) = either(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    for host in without.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        builder = builder.no_proxy(host);
        // Elsewhere `example.com` means its subdomains too; here only `.example.com` does.
        if !host.starts_with(['.', '*']) {
            builder = builder.no_proxy(&format!(".{host}"));
        }
    }
    builder.build().map(Some).map_err(wrong)
}

fn certificates(path: String) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(&path).at(&path).map_err(|error| error.help("SSL_CERT_FILE names it"))?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::file(&path, "holds no PEM certificate").help("SSL_CERT_FILE names it"));
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
    fn the_environment_decides() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();

        let plain = settings(&[("HF_HOME", home)]).unwrap();
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.token.as_deref(), Some("hf_file"));
        assert_eq!(plain.cache, Some(folder.path().join("hub")));
        assert_eq!(plain.proxy, None);

        let set = [("HF_ENDPOINT", "http://mirror:8080/"), ("HF_TOKEN", "hf_env"), ("HF_HUB_CACHE", "/c")];
        let set = settings(&[&set[..], &[("HF_HOME", home)]].concat()).unwrap();
        assert_eq!(set.endpoint, "http://mirror:8080");
        assert_eq!(set.token.as_deref(), Some("hf_env"));
        assert_eq!(set.cache, Some("/c".into()));
    }

    #[test]
    fn the_proxy_is_that_of_the_scheme() {
        let both = [("HTTPS_PROXY", "http://secure:1"), ("http_proxy", "http://user:word@plain:2")];
        let host = |variables: &[(&str, &str)]| {
            settings(variables).unwrap().proxy.map(|proxy| (proxy.host().to_owned(), proxy.port()))
        };
        assert_eq!(host(&both), Some(("secure".into(), 1)));
        let plain = [&both[..], &[("HF_ENDPOINT", "http://mirror")]].concat();
        assert_eq!(host(&plain), Some(("plain".into(), 2)));
        assert_eq!(settings(&plain).unwrap().proxy.unwrap().password(), Some("word"));
        assert_eq!(host(&[("ALL_PROXY", "socks5h://all:3")]), Some(("all".into(), 3)));

        let without = [&both[..], &[("NO_PROXY", "localhost, huggingface.co")]].concat();
        let proxy = settings(&without).unwrap().proxy.unwrap();
        let passes = |url: &str| !proxy.is_no_proxy(&url.parse().unwrap());
        assert!(!passes("https://huggingface.co/a"));
        assert!(!passes("https://cdn.huggingface.co/a"));
        assert!(passes("https://example.com/a"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |variables: &[(&str, &str)]| settings(variables).unwrap_err().to_string();
        assert!(error(&[("HF_ENDPOINT", "hub")]).contains("HF_ENDPOINT is `hub`"));
        assert!(error(&[("HTTPS_PROXY", "ftp://x")]).contains("HTTPS_PROXY is `ftp://x`"));
        assert!(error(&[("SSL_CERT_FILE", "/no/such.pem")]).contains("SSL_CERT_FILE"));
    }
}
