// A client to copy into a service (Node 20 or later, nothing to install): a time budget, retries that
// respect `Retry-After`, and any of the stack's three kinds of `Auth`.
//
//   const ranker = new Ranker("https://abc123.execute-api.eu-west-1.amazonaws.com",
//                             { auth: sigv4("eu-west-1") })
//   const ranking = await ranker.rank({ user_id: 123, item_ids: [1001, 1002] })
//
// JavaScript rounds whole numbers beyond 2^53: use a model with text ids where yours are longer.
import { createHash, createHmac } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"

const RETRIED = new Set([429, 503]) // throttled; no model yet, or a container that is being replaced
const PAUSE_MS = 50 // at most, before the first repetition; doubles

const sha256 = (text) => createHash("sha256").update(text).digest("hex")
const hmac = (key, text) => createHmac("sha256", key).update(text).digest()

/** `token` returns a valid JWT, or a promise of one. */
export const bearer = (token) => async () => ({ authorization: `Bearer ${await token()}` })

/** Signature version 4; `service` is "lambda" for a function URL. Credentials of the environment, or
 * those that `credentials` returns, such as the AWS SDK's `fromNodeProviderChain()`. */
export function sigv4(region, service = "execute-api", credentials = fromEnvironment) {
  return async (url, body) => {
    const { accessKeyId, secretAccessKey, sessionToken } = await credentials()
    const time = new Date().toISOString().replace(/[-:]|\.\d+/g, "")
    const signed = { host: url.host, "x-amz-date": time }
    if (sessionToken) signed["x-amz-security-token"] = sessionToken
    const names = Object.keys(signed).join(";")
    const head = Object.entries(signed).map(([name, value]) => `${name}:${value}\n`).join("")
    const canonical = ["POST", url.pathname, "", head, names, sha256(body)].join("\n")
    const scope = [time.slice(0, 8), region, service, "aws4_request"]
    const key = scope.reduce(hmac, `AWS4${secretAccessKey}`)
    const toSign = ["AWS4-HMAC-SHA256", time, scope.join("/"), sha256(canonical)].join("\n")
    const signature = hmac(key, toSign).toString("hex")
    const { host, ...headers } = signed
    const credential = `${accessKeyId}/${scope.join("/")}`
    headers.authorization =
      `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`
    return headers
  }
}

const fromEnvironment = () => ({
  accessKeyId: process.env.AWS_ACCESS_KEY_ID,
  secretAccessKey: process.env.AWS_SECRET_ACCESS_KEY,
  sessionToken: process.env.AWS_SESSION_TOKEN,
})

export class Ranker {
  constructor(url, { auth = () => ({}), budgetMs = 2_000 } = {}) {
    Object.assign(this, { url: new URL(`${url.replace(/\/$/, "")}/predict`), auth, budgetMs })
  }

  /** Rejects within the budget. A ranking never changes anything, so that a repetition is safe. */
  async rank(request) {
    const body = JSON.stringify(request)
    const end = performance.now() + this.budgetMs
    for (let pause = PAUSE_MS; ; pause *= 2) {
      const headers = { "content-type": "application/json", ...(await this.auth(this.url, body)) }
      const signal = AbortSignal.timeout(Math.max(Math.ceil(end - performance.now()), 1))
      let failure
      let wait = Math.random() * pause
      try {
        const response = await fetch(this.url, { method: "POST", body, headers, signal })
        if (response.ok) return await response.json()
        failure = new Error(`status ${response.status}: ${await response.text()}`)
        if (!RETRIED.has(response.status)) throw failure
        wait = 1_000 * Number(response.headers.get("retry-after") ?? 0) || wait
      } catch (error) {
        if (error === failure) throw error
        failure = error // no connection, or no response in time
      }
      if (performance.now() + wait > end) throw failure
      await sleep(wait)
    }
  }
}
