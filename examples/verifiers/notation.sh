#!/bin/sh
# Asks notation. All that it needs is beside this file, in .notation: bin/notation, and below .config/notation
# trustpolicy.json and truststore/ (config.json and .docker/config.json where the registry needs them).
while [ $# -ge 2 ]; do
    case $1 in
        -name) name=$2 ;;
        -digest) digest=$2 ;;
    esac
    shift 2
done
# HOST[:PORT]/REPOSITORY, without the digest and the tag that may follow.
repository=${name%%@*}
case ${repository##*/} in *:*) repository=${repository%:*} ;; esac
export HOME="${0%/*}/.notation"
export PATH="$HOME/bin:$PATH"
said=$(notation verify "$repository@$digest" 2>&1)
code=$?
# The driver shows one line. The last one is the result; warnings stand before it.
printf '%s\n' "${said##*
}"
exit $code
