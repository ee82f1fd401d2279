//! Parses times from servers, and how long a server asks to wait.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::HeaderMap;

const DAY: u64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns how long the server asks to wait: `Retry-After` in seconds or as a date, else the time until the
/// window of `RateLimit: "api";r=0;t=45` (or of the older `RateLimit-Reset: 45`) ends.
pub(crate) fn asked_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |text: &str| Duration::try_from_secs_f64(text.trim().parse().ok()?).ok();
    if let Some(wait) = header("retry-after") {
        return seconds(wait).or_else(|| {
            // By the server's own clock if it sends it, since this machine's may be wrong.
            let now = header("date").and_then(http_date).unwrap_or(now);
            Some(http_date(wait)?.duration_since(now).unwrap_or_default())
        });
    }
    let windows = headers.get_all("ratelimit").iter().filter_map(|value| value.to_str().ok());
    let ends = windows.flat_map(|value| value.split(',')).filter_map(|window| {
        let parameter = |name: &str| {
            let mut all = window.split(';').filter_map(|part| part.trim().split_once('='));
            all.find(|(known, _)| known.trim() == name).map(|(_, value)| value)
        };
        // A window with requests left is not the exhausted one.
        if parameter("r").is_some_and(|left| left.trim() != "0") {
            return None;
        }
        seconds(parameter("t")?)
    });
    ends.max().or_else(|| seconds(header("ratelimit-reset")?))
}

/// Parses a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    let mut words = text.split_once(',')?.1.split_whitespace();
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(month))? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    let sane = (1970..10_000).contains(&year) && (1..=31).contains(&day);
    if !sane || hours > 23 || minutes > 59 || seconds > 60 || words.next()? != "GMT" {
        return None;
    }
    let seconds = (days_before(year, month) + day - 1) * DAY + hours * 3_600 + minutes * 60 + seconds;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns the number of days from 1970-01-01 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let days = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    years + days.iter().take(month as usize - 1).sum::<u64>()
}

/// Formats seconds since the Unix epoch as a UTC date, such as `1970-01-01`.
pub(crate) fn date(seconds: u64) -> String {
    // No certificate is dated later than the year 9999.
    let days = seconds.min(253_402_300_799) / DAY;
    let year = (1970..).take_while(|year| days_before(*year, 1) <= days).last().unwrap_or(1970);
    let month = (1..=12).take_while(|month| days_before(year, *month) <= days).last().unwrap_or(1);
    format!("{year}-{month:02}-{:02}", days - days_before(year, month) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06 08:49:37, the example in RFC 9110; `date +%s` gives the number.
    const EXAMPLE: u64 = 784_111_777;

    fn asked(headers: &[(&'static str, &str)]) -> Option<Duration> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        asked_wait(&map, UNIX_EPOCH + Duration::from_secs(EXAMPLE - 45))
    }

    #[test]
    fn parses_how_long_servers_ask_to_wait() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked(&[("retry-after", "120")]), seconds(120));
        assert_eq!(asked(&[("retry-after", "44.8")]), Some(Duration::from_millis(44_800)));
        let date = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked(&[date]), seconds(45));
        assert_eq!(asked(&[date, ("date", "Sun, 06 Nov 1994 08:49:30 GMT")]), seconds(7));
        assert_eq!(asked(&[date, ("date", "Sun, 06 Nov 1994 09:00:00 GMT")]), seconds(0));
        // As the hub sends it.
        let window = ("ratelimit", "\"resolvers\";r=0;t=45");
        assert_eq!(
            asked(&[window, ("ratelimit-policy", "\"fixed window\";\"resolvers\";q=3000;w=300")]),
            seconds(45)
        );
        assert_eq!(asked(&[("ratelimit", "\"api\";r=7;t=200, \"pages\";r=0;t=9")]), seconds(9));
        assert_eq!(asked(&[("ratelimit-reset", "30")]), seconds(30));
        assert_eq!(asked(&[("retry-after", "7"), window]), seconds(7));
        for wrong in
            ["-1", "soon", "NaN", "inf", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"]
        {
            assert_eq!(asked(&[("retry-after", wrong)]), None, "{wrong}");
        }
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn formats_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(EXAMPLE), "1994-11-06");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
        assert_eq!(date(1_767_225_600), "2026-01-01");
    }
}
