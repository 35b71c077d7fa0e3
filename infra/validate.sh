#!/bin/sh
# Checks that a running Waybill works: every service is ready, an order is placed and fulfilled, and analytics counts it.
# infra/deploy.sh runs it after a deployment. It works with any Waybill whose addresses it gets. It leaves a product,
# DEPLOY-CHECK-<time>, and one order for it.
set -eu

usage() {
	cat <<'EOF'
usage: infra/validate.sh --orders URL --fulfillment URL --analytics URL --notifications URL [--timeout SECONDS]

A URL has no slash at its end. --timeout is how long each step may take, 300 seconds by default.
EOF
}

orders='' fulfillment='' analytics='' notifications='' timeout=300
while [ $# -gt 0 ]; do
	case $1 in
	--help | -h)
		usage
		exit 0
		;;
	--orders | --fulfillment | --analytics | --notifications | --timeout | --patience)
		[ $# -ge 2 ] || { echo "$1 needs a value" >&2; usage >&2; exit 2; }
		case $1 in
		--orders) orders=$2 ;;
		--fulfillment) fulfillment=$2 ;;
		--analytics) analytics=$2 ;;
		--notifications) notifications=$2 ;;
		--timeout | --patience) timeout=$2 ;; # --patience is the former name
		esac
		shift 2
		;;
	*)
		echo "unknown argument: $1" >&2
		usage >&2
		exit 2
		;;
	esac
done
missing=
[ -n "$orders" ] || missing="$missing --orders"
[ -n "$fulfillment" ] || missing="$missing --fulfillment"
[ -n "$analytics" ] || missing="$missing --analytics"
[ -n "$notifications" ] || missing="$missing --notifications"
[ -z "$missing" ] || { echo "missing:$missing" >&2; usage >&2; exit 2; }
case $timeout in
'' | *[!0-9]*) echo "--timeout must be a number of seconds, got $timeout" >&2; exit 2 ;;
esac
command -v curl >/dev/null 2>&1 || { echo "missing: curl" >&2; exit 2; }

# One product, and one key, for all repetitions of one run.
run=$(date +%s)-$$
product=DEPLOY-CHECK-$run
last=

# ask METHOD URL [BODY] prints the answer's body and fails unless its status is 2xx; $last says why then.
ask() {
	method=$1 url=$2 body=${3-}
	if [ -n "$body" ]; then
		set -- -X "$method" -H 'Content-Type: application/json' -H "Idempotency-Key: deploy-check-$run" --data "$body"
	else
		set -- -X "$method"
	fi
	curl -sS --fail-with-body --max-time 30 "$@" "$url" 2>&1
}

# until_true SECONDS TEXT COMMAND... repeats the command until it succeeds.
until_true() {
	limit=$1 what=$2
	shift 2
	end=$(($(date +%s) + limit))
	while ! "$@"; do
		if [ "$(date +%s)" -ge "$end" ]; then
			echo "failed after $limit seconds: $what: $last" >&2
			exit 1
		fi
		sleep 1
	done
	echo "ok: $what"
}

# field NAME prints a field of the JSON on stdin whose value is a word or a number.
field() {
	tr -d '\n' | sed -n "s/.*[{,[:space:]]\"$1\":[[:space:]]*\"\{0,1\}\([A-Za-z0-9_.-]*\).*/\1/p"
}

ready() { last=$(ask GET "$1/readyz"); }

stocked() { last=$(ask PUT "$fulfillment/v1/inventory/$product" '{"on_hand": 10}'); }

placed() {
	last=$(ask POST "$orders/v1/orders" "{\"customer_id\": \"$product\", \"items\": [{\"product_id\": \"$product\", \"name\": \"Deployment check\", \"quantity\": 1, \"price\": 1.00}], \"total_amount\": 1.00, \"shipping_address\": {\"street\": \"123 Test St\", \"city\": \"Test City\", \"state\": \"TS\", \"zip\": \"12345\"}}") || return 1
	order=$(printf '%s' "$last" | field order_id)
	[ -n "$order" ]
}

fulfilled() {
	last=$(ask GET "$orders/v1/orders/$order") || return 1
	last=$(printf '%s' "$last" | field status)
	case $last in
	fulfilled) return 0 ;;
	fulfillment_failed | cancelled | needs_attention)
		echo "failed: order $order ended as $last" >&2
		exit 1
		;;
	esac
	return 1
}

counted() {
	last=$(ask GET "$analytics/v1/analytics/metrics?name=purchases_$product&window=1h") || return 1
	last=$(printf '%s' "$last" | field count)
	[ "$last" = 1 ]
}

for service in "orders $orders" "fulfillment $fulfillment" "analytics $analytics" "notifications $notifications"; do
	until_true "$timeout" "${service%% *} is ready" ready "${service#* }"
done
until_true "$timeout" "$product is in stock" stocked
until_true "$timeout" "an order is accepted" placed
until_true "$timeout" "order $order is fulfilled" fulfilled
until_true "$timeout" "analytics counts it" counted
