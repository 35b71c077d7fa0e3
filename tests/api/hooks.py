"""What JSON Schema cannot say about Waybill's requests.

Schemathesis makes requests that an operation's description allows, and expects them to be accepted. Some rules are about two
values at once, or about values that only the service can make. `before_call` brings such a request in line with these rules,
and nothing else: a request that breaks the description stays as it is, and so does every rule that the description can say.
"""

import datetime
import decimal
import hashlib
import json
import re
import threading

import schemathesis

DEAD_LETTERS = "/v1/dead-letters"
# A public key on the curve P-256, and a secret: most texts of the right form are no point on the curve.
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"

cursors = {}  # by the request that has a next page: the cursor of that page
lock = threading.Lock()


def positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.hook
def before_call(context, case, kwargs):
    if not positive(case):
        return
    if case.query:
        query(case)
    # Which ETags hold, only the service knows. Another one is answered with 412.
    if case.method.upper() in ("PUT", "DELETE"):
        for name in list(case.headers or {}):
            if name.lower() in ("if-match", "if-none-match"):
                del case.headers[name]
    repair = {
        ("POST", "/v1/orders"): order,
        ("POST", "/v1/inventory/{product_id}/adjustments"): own_key,
        ("PUT", "/v1/customers/{customer_id}/contact"): contact,
        ("POST", "/v1/analytics/events"): events,
        ("POST", "/analytics/event"): events,
        ("POST", DEAD_LETTERS + "/redrive"): handled,
        ("POST", DEAD_LETTERS + "/dismiss"): handled,
    }.get((case.method.upper(), case.path))
    if repair is not None:
        repair(case)


def key(case):
    """The request without its position in the list."""
    rest = tuple(sorted((name, str(value)) for name, value in (case.query or {}).items() if name != "cursor"))
    return case.method.upper(), case.path, rest


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 200 and case.method.upper() == "GET" and b'"next_cursor"' in response.content:
        with lock:
            cursors[key(case)] = response.json().get("next_cursor")


def query(case):
    q = case.query
    # A cursor is a position in one list that the service itself gave out.
    if "cursor" in q:
        with lock:
            known = cursors.get(key(case))
        if known:
            q["cursor"] = known
        else:
            del q["cursor"]
    # The state of dead letters can only be asked for together with their topic. Without one the answer is a count.
    if case.path == DEAD_LETTERS and "topic" not in q:
        q.pop("state", None)
        q.pop("cursor", None)
    # A range ends after it begins.
    if case.path == "/v1/analytics/series" and ("from" in q or "to" in q):
        q.pop("from", None)
        q["to"] = "2026-03-14T09:26:53Z"


def handled(case):
    if isinstance(case.body, dict):
        case.body.pop("cursor", None)


def order(case):
    body = case.body
    if not isinstance(body, dict):
        return
    # How many decimal places an amount has depends on its currency, and the total follows from the lines.
    body["currency"] = "USD"
    total = decimal.Decimal(0)
    for line in body["items"]:
        line["price"] = round(float(line["price"]) % 100, 2)
        total += decimal.Decimal(str(line["price"])) * int(line["quantity"])
    body["total_amount"] = float(total)
    own_key(case)


def own_key(case):
    # A key belongs to one request. Another one with it is refused.
    for name in list(case.headers or {}):
        if name.lower() == "idempotency-key":
            digest = hashlib.sha256(json.dumps(case.body, sort_keys=True).encode()).hexdigest()
            case.headers[name] = case.headers[name][:200] + digest[:40]


def contact(case):
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("push"), dict):
        # The key is a point on a curve, and the endpoint a URL. Its host does not exist.
        body["push"].update(endpoint="https://push.invalid/1", p256dh=P256DH, auth=AUTH)


def events(case):
    body = case.body
    for event in body if isinstance(body, list) else [body]:
        if isinstance(event, dict):
            analytics_event(event)


def analytics_event(event):
    # Events are refused when they come from the future or from before the year 2000.
    now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=1)
    event["timestamp"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    # Ids are bounded in bytes, not in characters, and are printable. JSON Schema has a word for neither.
    for name in ("event_id", "user_id", "session_id", "product_id", "order_id", "algorithm"):
        value = event.get(name)
        if isinstance(value, str) and value and not re.fullmatch("[!-~]+", value):
            event[name] = re.sub("[^!-~]", "x", value)
    # How many decimal places an amount has depends on its currency.
    if "currency" in event and event.get("event_type") == "analytics.product_purchased":
        event["currency"] = "USD"
    if isinstance(event.get("value"), (int, float)) and not isinstance(event["value"], bool):
        event["value"] = round(float(event["value"]) % 1e6, 2)
    # An event has a size, and so do its properties.
    if len(str(event.get("properties"))) > 1000:
        event["properties"] = {}
