#!/bin/sh
# Deploys Waybill to an Azure resource group, or updates it, and checks that it works. It can be repeated at
# any time, also after a failure. docs/operations.md says more.
set -eu

usage() {
	cat <<'EOF'
usage: infra/deploy.sh --group NAME --environment dev|prod --allow RANGES [options]

  --group NAME          the resource group; made when there is none
  --environment NAME    which parameters: infra/bicep/<NAME>.parameters.json
  --allow RANGES        addresses that may call the services, such as 203.0.113.0/24,198.51.100.7/32. This machine has to be
                        among them, or the deployment cannot be validated
  --location REGION     where to make the group, if it has to be made
  --tag TAG             version of the images; this commit's by default. Images that the registry has are not built again
  --fulfillment-location REGION
                        runs fulfillment elsewhere than in the first region
  --what-if             shows what would change, and changes nothing
  --no-validate         does not ask whether it works
EOF
}

fail() {
	echo "$*" >&2
	exit 1
}

images='orders fulfillment notifications analytics daprd placement scheduler'
# The secrets that the channels and the bus need from the vault. The deployment itself stores the last one.
secrets='smtp-user smtp-password twilio-account-sid twilio-auth-token eventhubs-connection-string'
api_version=2025-07-01

group='' environment='' allow='' location='' tag='' elsewhere='' what_if=no validate=yes
while [ $# -gt 0 ]; do
	case $1 in
	--help | -h)
		usage
		exit 0
		;;
	--what-if)
		what_if=yes
		shift
		;;
	--no-validate)
		validate=no
		shift
		;;
	--group | --environment | --allow | --location | --tag | --fulfillment-location)
		if [ $# -lt 2 ] || [ -z "$2" ]; then
			echo "$1 needs a value" >&2
			usage >&2
			exit 2
		fi
		case $1 in
		--group) group=$2 ;;
		--environment) environment=$2 ;;
		--allow) allow=$2 ;;
		--location) location=$2 ;;
		--tag) tag=$2 ;;
		--fulfillment-location) elsewhere=$2 ;;
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
[ -n "$group" ] || missing="$missing --group"
[ -n "$environment" ] || missing="$missing --environment"
[ -n "$allow" ] || missing="$missing --allow"
if [ -n "$missing" ]; then
	echo "missing:$missing" >&2
	usage >&2
	exit 2
fi

here=$(cd "$(dirname "$0")" && pwd)
parameters=$here/bicep/$environment.parameters.json
[ -f "$parameters" ] || fail "there is no $parameters; --environment is dev or prod"
case $allow in
*[!0-9./,a-fA-F:]*) fail "--allow is a list of address ranges with commas, such as 203.0.113.0/24, and not $allow" ;;
esac
ranges="[\"$(printf '%s' "$allow" | sed 's/,/","/g')\"]"

missing=
for tool in az curl; do
	command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -z "$missing" ] || fail "missing:$missing; az is the Azure CLI"
if [ -z "$tag" ]; then
	command -v git >/dev/null 2>&1 || fail "missing: git, which says what version this is; or give --tag"
	tag=$(git -C "$here" rev-parse --short=12 HEAD) || fail "this is no git checkout; give --tag"
	[ -z "$(git -C "$here" status --porcelain)" ] || tag=$tag-$(date -u +%Y%m%d%H%M%S)
fi
case $tag in
*[!a-zA-Z0-9._-]*) fail "--tag has letters, digits, dots, underscores and hyphens, and not $tag" ;;
esac
az account show --output none || fail "az is not logged in: az login, then az account set --subscription NAME"

step=
step() {
	step=$1
	printf '\n== %s\n' "$step"
}

stopped=
deployed=no
# After any failure, fulfillment runs again, and the last line says which step failed.
leave() {
	code=$?
	[ "$code" -ne 0 ] || return 0
	if [ -n "$stopped" ] && [ "$deployed" = no ]; then
		echo "starting fulfillment again as it was" >&2
		az resource invoke-action --action start --ids "$stopped" --api-version "$api_version" --output none ||
			echo "fulfillment is STOPPED and could not be started: az resource invoke-action --action start --ids $stopped --api-version $api_version" >&2
	fi
	echo "failed: $step" >&2
	exit "$code"
}
trap leave EXIT

step "resource group $group"
if [ "$(az group exists --name "$group")" != true ]; then
	[ -n "$location" ] || fail "there is no resource group $group; give --location to make it"
	[ "$what_if" = no ] || fail "there is no resource group $group, so everything would be new"
	az group create --name "$group" --location "$location" --output none
fi

# The parameters that change from one deployment to the next.
release=$(date -u +%y%m%d%H%M%S)
main() {
	set -- "$@" --resource-group "$group" --template-file "$here/bicep/main.bicep" --parameters "@$parameters" \
		--parameters registryName="$registry" imageTag="$tag" release="$release" clientAddresses="$ranges"
	if [ -n "$elsewhere" ]; then
		set -- "$@" --parameters fulfillmentLocation="$elsewhere"
	fi
	az deployment group "$@"
}

if [ "$what_if" = yes ]; then
	step "what would change"
	az deployment group what-if --resource-group "$group" --template-file "$here/bicep/registry.bicep"
	registry=$(az acr list --resource-group "$group" --query '[0].name' --output tsv)
	[ -n "$registry" ] || fail "there is no registry yet, so everything else would be new"
	main what-if
	exit 0
fi

step "registry"
az deployment group create --resource-group "$group" --name waybill-registry --template-file "$here/bicep/registry.bicep" --output none
registry=$(az deployment group show --resource-group "$group" --name waybill-registry --query properties.outputs.registryName.value --output tsv)
[ -n "$registry" ] || fail "the deployment named no registry"

for image in $images; do
	step "image $image:$tag"
	if az acr repository show --name "$registry" --image "$image:$tag" --output none >/dev/null 2>&1; then
		echo "is there already"
	else
		az acr build --registry "$registry" --image "$image:$tag" --target "$image" --file "$here/../Dockerfile" "$here/.."
	fi
done

# A deployment starts the new replica before it stops the old one. Two replicas of fulfillment would be two workflow engines on the same
# state, so fulfillment stops first. Events that are published meanwhile wait on the bus.
step "stop fulfillment"
running=$(az resource list --resource-group "$group" --resource-type Microsoft.App/containerApps --query "[?starts_with(name, 'fulfillment-')].id" --output tsv)
case $running in
*"
"*) fail "there are two of fulfillment; delete the one that is not to run: $running" ;;
esac
if [ -n "$running" ]; then
	stopped=$running
	az resource invoke-action --action stop --ids "$stopped" --api-version "$api_version" --output none
	tries=0
	until [ "$(az resource show --ids "$stopped" --api-version "$api_version" --query properties.runningStatus --output tsv)" = Stopped ]; do
		tries=$((tries + 1))
		[ "$tries" -lt 60 ] || fail "fulfillment did not stop within two minutes"
		sleep "${WAYBILL_DEPLOY_PAUSE:-2}"
	done
else
	echo "it does not run yet"
fi

step "everything else"
main create --name "waybill-$release" --output none
deployed=yes

output() {
	az deployment group show --resource-group "$group" --name "waybill-$release" --query "properties.outputs.$1" --output tsv
}

if [ -n "$stopped" ]; then
	step "start fulfillment"
	if [ "${stopped##*/}" = "$(output fulfillmentName.value)" ]; then
		az resource invoke-action --action start --ids "$stopped" --api-version "$api_version" --output none
	else
		echo "it runs elsewhere now; delete the one that is stopped: $stopped"
	fi
fi

step "secrets in the vault"
vault=$(output vaultName.value)
have=$(az keyvault secret list --vault-name "$vault" --query '[].name' --output tsv) ||
	fail "az cannot list the secrets of $vault: this needs the role Key Vault Secrets Officer on it"
missing=
for secret in $secrets; do
	printf '%s\n' "$have" | grep -qx "$secret" || missing="$missing $secret"
done
if [ -n "$missing" ]; then
	echo "missing in $vault:$missing" >&2
	echo "put each in: az keyvault secret set --vault-name $vault --name NAME --file FILE" >&2
	fail "then run this again: without them notifications does not start"
fi

if [ "$validate" = yes ]; then
	step "does it work?"
	"$here/validate.sh" \
		--orders "$(output 'ordersUrls.value[0]')" --fulfillment "$(output fulfillmentUrl.value)" \
		--analytics "$(output 'analyticsUrls.value[0]')" --notifications "$(output 'notificationsUrls.value[0]')"
fi

step "done"
echo "version $tag, release $release"
for name in ordersUrls fulfillmentUrl analyticsUrls notificationsUrls; do
	output "$name.value" | tr -d '[]' | sed "s/^/$name: /"
done
