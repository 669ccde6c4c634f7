// Runs in mongosh and in the older mongo. `given` stands above: what to do, and the address with its login.
const server = connect(given.address);
const ours = (name) => !['admin', 'config', 'local'].includes(name);
const told = [];
const names = server.adminCommand({ listDatabases: 1, nameOnly: true }).databases.map((one) => one.name).filter(ours);
for (const name of given.brief ? [] : names) {
  const database = server.getSiblingDB(name);
  const found = database.getCollectionInfos().filter((one) => !one.name.startsWith('system.'));
  const kept = given.keep[name] || [];
  for (const one of found) {
    if (given.drop && !kept.includes(one.name)) {
      database.getCollection(one.name).drop();
      continue;
    }
    const plain = !one.type || one.type === 'collection';
    const count = plain ? Number(database.runCommand({ count: one.name }).n) : -1;
    const indexes = plain ? database.getCollection(one.name).getIndexes() : [];
    told.push([name, one.name, count, indexes.some((index) => index.expireAfterSeconds !== undefined)]);
  }
}
const role = server.adminCommand({ isMaster: 1 });
const member = Boolean(role.setName && role.hosts && role.msg !== 'isdbgrid');
const auth = given.rights ? server.adminCommand({ connectionStatus: 1, showPrivileges: true }).authInfo : undefined;
const everything = (one) => Boolean(one.resource.anyResource) && one.actions.includes('anyAction');
const replays = auth && (auth.authenticatedUsers.length === 0 || auth.authenticatedUserPrivileges.some(everything));
const dataPath = given.path ? server.adminCommand({ getCmdLineOpts: 1 }).parsed.storage.dbPath : undefined;
print('skep:' + JSON.stringify({ version: server.version(), collections: told, member, replays, path: dataPath }));
