// The official JavaScript client, unmodified, against a cluster: what programs do with it, and what they see.
//
//     node main.js KUBECONFIG NAMESPACE
//
// The namespace has a pod `server` that has written `started` and serves its /etc on port 8080. The program says `ready`,
// waits for a line on its standard input (meanwhile the API server is restarted), and ends with code 0 when all held.

import assert from 'node:assert/strict';
import { createInterface } from 'node:readline';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import * as k8s from '@kubernetes/client-node';

const [kubeconfig, namespace] = process.argv.slice(2);
const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
const core = config.makeApiClient(k8s.CoreV1Api);

const configMap = (name, data = {}) => ({ metadata: { name, labels: { of: 'js' } }, data });
const create = (name, data) => core.createNamespacedConfigMap({ namespace, body: configMap(name, data) });

// The Status of a call that has to fail so.
async function refused(code, reason, call) {
    const error = await call.then(() => assert.fail(`not refused with ${code} ${reason}`), (error) => error);
    assert(error instanceof k8s.ApiException, error);
    const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
    assert.deepEqual([error.code, status.reason], [code, reason]);
    return status;
}

async function pages() {
    for (let number = 0; number < 25; number++) await create(`page-${String(number).padStart(2, '0')}`);
    const sizes = [];
    let _continue;
    do {
        const page = await core.listNamespacedConfigMap({ namespace, limit: 10, _continue });
        sizes.push([page.items.length, page.metadata.remainingItemCount]);
        _continue = page.metadata._continue;
    } while (_continue);
    // With the cluster's own.
    assert.deepEqual(sizes, [[10, 16], [10, 6], [6, undefined]]);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'of=js' });
}

const patch = (name, body, kind, more = {}) =>
    core.patchNamespacedConfigMap({ name, namespace, body, ...more }, k8s.setHeaderOptions('Content-Type', kind));

async function patches() {
    await create('patched', { a: '1' });
    const { JsonPatch, MergePatch, StrategicMergePatch } = k8s.PatchStrategy;
    for (const [kind, body, want] of [
        [JsonPatch, [{ op: 'add', path: '/data/b', value: '2' }], { a: '1', b: '2' }],
        [MergePatch, { data: { a: null, c: '3' } }, { b: '2', c: '3' }],
        [StrategicMergePatch, { data: { d: '4' } }, { b: '2', c: '3', d: '4' }],
    ]) {
        assert.deepEqual((await patch('patched', body, kind)).data, want);
    }
    const stale = await core.readNamespacedConfigMap({ name: 'patched', namespace });
    stale.data.e = '5';
    await core.replaceNamespacedConfigMap({ name: 'patched', namespace, body: stale });
    await refused(409, 'Conflict', core.replaceNamespacedConfigMap({ name: 'patched', namespace, body: stale }));
    await refused(409, 'AlreadyExists', create('patched'));
    await refused(404, 'NotFound', core.readNamespacedConfigMap({ name: 'none', namespace }));
}

async function apply() {
    const applied = (fieldManager, owned, more) => {
        const body = { apiVersion: 'v1', kind: 'ConfigMap', ...configMap('applied', { owned }) };
        return patch('applied', body, k8s.PatchStrategy.ServerSideApply, { fieldManager, ...more });
    };
    await applied('one', '1');
    const status = await refused(409, 'Conflict', applied('two', '2'));
    assert.equal(status.message, 'Apply failed with 1 conflict: conflict with "one": .data.owned');
    assert.deepEqual((await applied('two', '2', { force: true })).data, { owned: '2' });
    // Through the client for any kind, which finds the resource by discovery.
    const any = k8s.KubernetesObjectApi.makeApiClient(config);
    const found = await any.read({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied', namespace } });
    assert.deepEqual(found.data, { owned: '2' });
}

async function streams() {
    const log = new PassThrough();
    await new k8s.Log(config).log(namespace, 'server', 'main', log);
    assert.equal(await text(log), 'started\n');

    const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
    const command = ['sh', '-c', 'read line; echo out $line; echo err >&2; exit 3'];
    const status = await new Promise((resolve, reject) => {
        new k8s.Exec(config).exec(namespace, 'server', 'main', command, stdout, stderr, stdin, false, resolve).catch(reject);
        stdin.write('put\n');
    });
    [stdout, stderr].forEach((stream) => stream.end());
    assert.deepEqual([await text(stdout), await text(stderr)], ['out put\n', 'err\n']);
    assert.deepEqual([status.reason, status.details.causes[0].message], ['NonZeroExitCode', '3']);

    const [output, input] = [new PassThrough(), new PassThrough()];
    const socket = await new k8s.PortForward(config).portForward(namespace, 'server', [8080], output, null, input);
    input.write('GET /hostname HTTP/1.0\r\n\r\n');
    let answer = '';
    for await (const chunk of output) {
        answer += chunk;
        if (answer.endsWith('server\n')) break;
    }
    assert.match(answer, /^HTTP\/1.1 200 OK/);
    socket.close();
}

// The client has no leader election; this is what one rests on.
async function election() {
    const leases = config.makeApiClient(k8s.CoordinationV1Api);
    const candidate = (holderIdentity) => ({ metadata: { name: 'js' }, spec: { holderIdentity, leaseDurationSeconds: 15,
        renewTime: new k8s.V1MicroTime() } });
    const tries = ['one', 'two', 'three'].map((who) => leases.createNamespacedLease({ namespace, body: candidate(who) }));
    const results = await Promise.allSettled(tries);
    assert.deepEqual(results.map((result) => result.status).sort(), ['fulfilled', 'rejected', 'rejected']);
    const held = await leases.readNamespacedLease({ name: 'js', namespace });
    const take = (holderIdentity) => leases.replaceNamespacedLease({ name: 'js', namespace,
        body: { ...held, spec: { ...held.spec, holderIdentity } } });
    assert.equal((await take('four')).spec.holderIdentity, 'four');
    await refused(409, 'Conflict', take('five'));
}

// An informer goes on where it was when the server goes away.
async function follow() {
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'of=restart' });
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const informer = k8s.makeInformer(config, path, list, 'of=restart');
    const told = [];
    let more = () => {};
    for (const verb of ['add', 'update', 'delete']) {
        informer.on(verb, (object) => more(told.push(`${verb} ${object.metadata.name}`)));
    }
    informer.on('error', () => setTimeout(() => informer.start(), 200));
    await informer.start();
    const expect = async (...want) => {
        while (told.length < want.length) await new Promise((resolve) => (more = resolve));
        assert.deepEqual(told, want);
    };
    return { informer, expect };
}

async function restart() {
    const make = (name) => core.createNamespacedConfigMap({ namespace, body: { metadata: { name, labels: { of: 'restart' } } } });
    const { informer, expect } = await follow();
    await make('before');
    await expect('add before');
    console.log('ready');
    await new Promise((resolve) => createInterface({ input: process.stdin }).once('line', resolve));
    await make('after');
    await core.deleteNamespacedConfigMap({ name: 'before', namespace });
    await expect('add before', 'add after', 'delete before');
    await informer.stop();
}

for (const step of [pages, patches, apply, streams, election, restart]) await step();
console.log('the JavaScript client: all held');
process.exit(0);
