#!/bin/sh
# minio.sh DIR [PORT]: starts MinIO on the loopback and prints its endpoint; pid and log in DIR/minio.pid and .log.
#
# Environment: MINIO the binary; MINIO_ROOT_USER, MINIO_ROOT_PASSWORD (both minioadmin);
# TLS=1 https with a certificate made in DIR/certs; SSE=0 without a key for SSE-S3 and SSE-KMS.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
dir=$1 port=${2:-9000} bin=${MINIO:-minio} scheme=http
mkdir -p "$dir/data" "$dir/home" "$dir/certs"
if [ "${TLS:-0}" = 1 ]; then
	scheme=https
	[ -f "$dir/certs/public.crt" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
		-nodes -days 30 -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
		-keyout "$dir/certs/private.key" -out "$dir/certs/public.crt" 2>/dev/null
fi
if [ "${SSE:-1}" = 1 ]; then
	[ -f "$dir/kms" ] || echo "test-key:$(head -c 32 /dev/urandom | base64 -w0)" >"$dir/kms"
	MINIO_KMS_SECRET_KEY=$(cat "$dir/kms")
	export MINIO_KMS_SECRET_KEY
fi
HOME=$dir/home MINIO_ROOT_USER=${MINIO_ROOT_USER:-minioadmin} MINIO_ROOT_PASSWORD=${MINIO_ROOT_PASSWORD:-minioadmin} \
MINIO_BROWSER=off MINIO_UPDATE=off MINIO_PROMETHEUS_AUTH_TYPE=public MINIO_CI_CD=1 \
GOMEMLIMIT=${GOMEMLIMIT:-1GiB} MINIO_API_REQUESTS_MAX=${MINIO_API_REQUESTS_MAX:-256} \
	setsid "$bin" server --quiet --address "127.0.0.1:$port" --certs-dir "$dir/certs" "$dir/data" \
	>"$dir/minio.log" 2>&1 </dev/null &
echo $! >"$dir/minio.pid"
wait_ready "$(cat "$dir/minio.pid")" 300 curl -sfk "$scheme://127.0.0.1:$port/minio/health/ready"
echo "$scheme://127.0.0.1:$port"
