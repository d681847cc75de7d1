// A conversation of Botium with a bot of the webhook channel, by the unmodified connector from npm.
//
//   node play.cjs URL CONVERSATION
const { readFileSync } = require('node:fs')
const { BotDriver } = require('botium-core')

async function play (url, path) {
  const driver = new BotDriver({
    PROJECTNAME: 'rtm-bridge',
    CONTAINERMODE: 'koreai-webhook',
    WAITFORBOTTIMEOUT: 10000,
    KOREAI_WEBHOOK_URL: url,
    KOREAI_WEBHOOK_CLIENTID: 'cs-sandbox',
    KOREAI_WEBHOOK_CLIENTSECRET: 'sandbox-secret'
  })
  const compiler = driver.BuildCompiler()
  compiler.Compile(readFileSync(path, 'utf8'), 'SCRIPTING_FORMAT_TXT', 'SCRIPTING_TYPE_CONVO')
  const container = await driver.Build()
  await container.Start()
  try {
    for (const conversation of compiler.convos) {
      await conversation.Run(container)
      console.log(`${conversation.header.name}: ${conversation.conversation.length} lines as expected`)
    }
    if (compiler.convos.length === 0) throw new Error(`no conversation in ${path}`)
  } finally {
    await container.Stop()
    await container.Clean()
  }
}

play(process.argv[2], process.argv[3]).then(() => process.exit(0), error => {
  console.error(error)
  process.exit(1)
})
